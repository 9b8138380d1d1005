"""What can be set about the teacher: by keyword, or by environment variables that begin with FABULA_."""

import os
import socket
from typing import Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from services.teacher.spec import BACKENDS, JudgeSettings, TeacherSpec, parse_judge


def default_worker_name() -> str:
    """Host and process, such as `lab-7.4211`: two teachers on one machine have different names."""
    return f"{socket.gethostname()}.{os.getpid()}"


class TeacherSettings(JudgeSettings, BaseSettings):
    """Everything that can be set about the teacher. FABULA_TEACHER is the stable name of the choice of judge."""

    model_config = SettingsConfigDict(env_prefix="FABULA_", frozen=True, extra="forbid")

    teacher: str = Field(
        default="rules:", description=f"Who judges: {', '.join(BACKENDS.values())}, or a name of the teachers file."
    )
    teachers_file: str | None = Field(
        default=None,
        description="YAML file of named teachers, for ?teacher=NAME and ensembles; read anew when it changes.",
    )
    redis_url: str | None = Field(default=None, description="Queue to take stories from; without it, HTTP alone.")
    worker: str = Field(default_factory=default_worker_name, min_length=1, description="Name in the consumer group.")

    batch_tokens: int = Field(default=8192, ge=64, description="Padded tokens (longest x stories) judged in one go.")
    batch_stories: int = Field(default=64, ge=1, description="Stories judged in one go.")
    queued_tokens: int = Field(
        default=262_144, ge=64, description="Tokens that may wait; a request that finds no room is answered 429."
    )
    cache_ttl_s: int = Field(
        default=86_400, ge=0, description="How long Redis remembers a verdict, in seconds; 0: not at all."
    )
    audits: bool = Field(default=True, description="Whether POST /audit is served: it costs some hundreds of verdicts.")

    max_stories: int = Field(default=1024, ge=1, description="Stories in one request.")
    max_story_chars: int = Field(default=100_000, ge=1, description="A longer story gets a `refused` verdict.")
    max_body_bytes: int = Field(default=16 * 1024 * 1024, ge=1024, description="A larger request is answered 413.")
    lease_s: float = Field(default=30.0, gt=0.0, description="How long a queued batch is ours before another may try.")
    max_deliveries: int = Field(default=5, ge=1, description="Attempts at a queued batch before its stories fail.")
    log_format: Literal["text", "json"] = Field(
        default="text", description="Lines for people, or one JSON object a line."
    )

    @field_validator("redis_url", "teachers_file", mode="before")
    @classmethod
    def _unset_where_empty(cls, value: object) -> object:
        # `FABULA_REDIS_URL=` in a compose file means "none".
        return None if value == "" else value

    @model_validator(mode="after")
    def _teacher_is_known(self) -> Self:
        if self.teachers_file is None or ":" in self.teacher or self.teacher in BACKENDS:
            parse_judge(self.teacher)
            _ = self.spec
        return self

    @property
    def spec(self) -> TeacherSpec:
        """The judge that `teacher` names and the settings for it.

        Raises:
            ValueError: `teacher` is not a judge; it may be a name of the teachers file.
        """
        options = {name: getattr(self, name) for name in JudgeSettings.model_fields}
        return TeacherSpec(judge=self.teacher, **options)


def explain_settings(error: ValidationError) -> str:
    """Each refused setting on a line: its variable, what is expected, and the value found."""
    return "\n  ".join(
        # Messages of our own (value errors) hold the value; those about several settings go by the teacher's.
        f"FABULA_{'_'.join(map(str, item['loc'])).upper() or 'TEACHER'}: {item['msg'].removeprefix('Value error, ')}"
        + ("" if item["type"] == "value_error" else f", found {str(item['input'])[:80]!r}")
        for item in error.errors()
    )
