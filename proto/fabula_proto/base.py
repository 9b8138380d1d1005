"""What every message shares: frozen, unknown keys refused, no NaN or infinity."""

from typing import Self

from pydantic import BaseModel, ConfigDict


class Message(BaseModel):
    """A value that travels between services. Immutable; a key nobody defined is an error, and so is a NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def to_json(self) -> str:
        """The message as one line of JSON (UTF-8 text)."""
        return self.model_dump_json()

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read a message back.

        Raises:
            pydantic.ValidationError: a key is missing, unknown or of the wrong type.
        """
        return cls.model_validate_json(text)
