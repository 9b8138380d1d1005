"""A monotone map from one teacher's reward to another's scale, and the file it is kept in."""

import hashlib
import json
from bisect import bisect_right
from itertools import pairwise
from pathlib import Path
from typing import Self

from pydantic import Field, ValidationError, model_validator

from fabula_proto import Message, TeacherIdentity
from fabula_proto.verdicts import Probability

CURE = "write it anew with: fabula teacher compare A B --stories FILE --map-out FILE"


class RewardMapError(ValueError):
    """A file is missing or holds no reward map; the message says what is wrong and how to mend it."""


class RewardMap(Message):
    """Piecewise linear: reward of `from_teacher` (0..1) to the reward (0..1) that `to_teacher` gives as often."""

    from_teacher: TeacherIdentity = Field(description="Whose reward goes in.")
    to_teacher: TeacherIdentity = Field(description="Whose scale comes out.")
    knots: tuple[tuple[Probability, Probability], ...] = Field(
        min_length=2, description="Pairs (reward in, reward out); between them the map is linear."
    )
    stories: int = Field(ge=1, description="Stories that both teachers judged, which the map was fitted on.")
    created_by: str = Field(min_length=1, description="Program and version.")

    @model_validator(mode="after")
    def _rises_over_the_whole_scale(self) -> Self:
        if self.knots[0] != (0.0, 0.0) or self.knots[-1][0] != 1.0:
            raise ValueError(
                f"knots go from {self.knots[0]} to {self.knots[-1]}; expected from (0, 0), because an empty story "
                "gets 0 from any teacher, to a reward in of 1"
            )
        for (x0, y0), (x1, y1) in pairwise(self.knots):
            if x1 <= x0 or y1 < y0:
                raise ValueError(f"knots ({x0}, {y0}) and ({x1}, {y1}) do not rise; a better reward must stay better")
        return self

    @property
    def hash(self) -> str:
        """First 8 hexadecimal digits of the SHA-256 of the knots: maps that give the same rewards have the same."""
        return hashlib.sha256(json.dumps(self.knots).encode()).hexdigest()[:8]

    def apply(self, reward: float) -> float:
        """`reward` (0..1) on the other teacher's scale (0..1)."""
        after = min(max(bisect_right(self.knots, reward, key=lambda knot: knot[0]), 1), len(self.knots) - 1)
        (x0, y0), (x1, y1) = self.knots[after - 1], self.knots[after]
        return min(y1, max(y0, y0 + (y1 - y0) * (reward - x0) / (x1 - x0)))

    def save(self, path: Path) -> None:
        """Write the map as JSON.

        Raises:
            OSError: the file cannot be written.
        """
        path.write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a map.

        Raises:
            RewardMapError: there is no such file, or it holds no reward map.
        """
        try:
            return cls.from_json(path.read_bytes())
        except OSError as error:
            raise RewardMapError(
                f"reward map {str(path)!r} cannot be read: {error.strerror or error}; {CURE}"
            ) from error
        except ValidationError as error:
            wrong = "; ".join(
                f"{'.'.join(str(part) for part in item['loc']) or 'file'}: {item['msg'].removeprefix('Value error, ')}"
                for item in error.errors()
            )
            raise RewardMapError(f"{str(path)!r} holds no reward map ({wrong}); {CURE}") from error
