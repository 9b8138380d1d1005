"""What can be set about the teacher: by keyword, or by environment variables that begin with FABULA_."""

import os
import socket
from typing import Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from services.teacher.rubric import DEFAULT_RUBRIC

LLAMA = "meta-llama/Llama-3.1-8B-Instruct"
# Backend -> the model it stands for when none is named; None where the backend takes no model.
BACKENDS: dict[str, str | None] = {"rules": None, "transformers": LLAMA}


def parse_teacher(teacher: str) -> tuple[str, str | None]:
    """Split `backend[:model]` into backend and model, with the backend's default model filled in.

    Raises:
        ValueError: the backend is unknown, or a model is named for a backend that takes none.
    """
    backend, _, model = teacher.strip().partition(":")
    if backend not in BACKENDS:
        known = ", ".join(f"{name}:" if default is None else f"{name}:MODEL" for name, default in BACKENDS.items())
        raise ValueError(f"teacher {teacher!r} names an unknown backend {backend!r}; known are {known}")
    default = BACKENDS[backend]
    if default is None and model:
        raise ValueError(f"teacher {teacher!r}: backend {backend} takes no model; write {backend + ':'!r}")
    return backend, model or default


def default_worker_name() -> str:
    """Host and process, such as `lab-7.4211`: two teachers on one machine have different names."""
    return f"{socket.gethostname()}.{os.getpid()}"


class TeacherSettings(BaseSettings):
    """Everything that can be set about the teacher. FABULA_TEACHER is the stable name of the choice of judge."""

    model_config = SettingsConfigDict(env_prefix="FABULA_", frozen=True, extra="forbid")

    teacher: str = Field(default="rules:", description="Who judges: `rules:` or `transformers:<hub name or folder>`.")
    teacher_revision: str | None = Field(default=None, description="Commit, tag or branch of a model from the hub.")
    rubric: str = Field(default=DEFAULT_RUBRIC, description="Name of a shipped rubric, or the path of a YAML file.")
    redis_url: str | None = Field(default=None, description="Queue to take stories from; without it, HTTP alone.")
    worker: str = Field(default_factory=default_worker_name, min_length=1, description="Name in the consumer group.")

    device: str = Field(
        default="auto", description="auto, cpu, cuda, cuda:1, mps; auto takes a GPU where there is one."
    )
    dtype: str = Field(
        default="auto",
        pattern="^(auto|float32|bfloat16|float16)$",
        description="auto is bfloat16 on a GPU and float32 on a CPU.",
    )
    temperature: float = Field(
        default=1.0, gt=0.0, le=10.0, description="Tempers each conditional; 0.2 gives the paper's expectation."
    )
    min_coverage: float | None = Field(
        default=None,
        ge=0.0,
        le=1.0,
        description="Verdicts below this coverage fail. Unset: 0.5, or 0 for a model that proves untrained.",
    )
    batch_tokens: int = Field(default=8192, ge=64, description="Padded tokens of stories in one forward.")

    max_stories: int = Field(default=1024, ge=1, description="Stories in one request.")
    max_story_chars: int = Field(default=100_000, ge=1, description="A longer story gets a `refused` verdict.")
    max_body_bytes: int = Field(default=16 * 1024 * 1024, ge=1024, description="A larger request is answered 413.")
    slice_stories: int = Field(
        default=32, ge=1, description="Stories judged in one go; HTTP and queue take turns between slices."
    )
    lease_s: float = Field(default=30.0, gt=0.0, description="How long a queued batch is ours before another may try.")
    max_deliveries: int = Field(default=5, ge=1, description="Attempts at a queued batch before its stories fail.")

    @field_validator("redis_url", "teacher_revision")
    @classmethod
    def _empty_is_unset(cls, value: str | None) -> str | None:
        # `FABULA_REDIS_URL=` in a compose file means "none".
        return value or None

    @model_validator(mode="after")
    def _teacher_is_known(self) -> Self:
        parse_teacher(self.teacher)
        return self

    @property
    def backend(self) -> str:
        """The kind of judge: `rules` or `transformers`."""
        return parse_teacher(self.teacher)[0]

    @property
    def model(self) -> str | None:
        """Hub name or folder of the judge's model, None for a judge without one."""
        return parse_teacher(self.teacher)[1]
