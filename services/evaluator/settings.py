"""What can be set about the evaluator: by keyword, or by environment variables that begin with FABULA_."""

import os
import socket
from pathlib import Path
from typing import Any, Literal

from pydantic import AliasChoices, Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

PREFIX = "FABULA_EVALUATOR_"
SUITES = (
    *("blimp", "blimp_supplement", "ewok", "entity_tracking", "wug_adj", "wug_past", "comps"),
    *("reading", "aoa", "glue", "storytelling"),
)
WITHOUT_DATA = ("blimp", "entity_tracking", "storytelling")  # these have generated items, or need none
ONLY_BY_NAME = ("glue",)  # hours of fine-tuning
ALIASES = {"supplement": "blimp_supplement", "entity": "entity_tracking", "stories": "storytelling"}
GLUE_TASKS = ("boolq", "mnli", "mrpc", "multirc", "qqp", "rte", "wsc")
DEFAULT_PROMPT = "Let me tell you a long, magical tale. Once upon a time, in a faraway land,"
DEFAULT_STORIES = 200
DEFAULT_NEW_TOKENS = 90


def default_worker_name() -> str:
    """Host and process, such as `lab-7.4211`: two evaluators on one machine have different names."""
    return f"{socket.gethostname()}.{os.getpid()}"


def _shared(name: str) -> Any:
    """Names that other services read too: FABULA_<NAME>, with FABULA_EVALUATOR_<NAME> first."""
    return AliasChoices(f"{PREFIX}{name}", f"FABULA_{name}")


def known_suites(names: tuple[str, ...]) -> tuple[str, ...]:
    """Full names, each once.

    Raises:
        ValueError: one is unknown, or none is given.
    """
    full = tuple(dict.fromkeys(ALIASES.get(name, name) for name in names))
    unknown = [name for name in full if name not in SUITES]
    if unknown or not full:
        raise ValueError(f"unknown suites {unknown}; known are {', '.join(SUITES)}")
    return full


class EvaluatorSettings(BaseSettings):
    """Everything that can be set about the evaluator."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="forbid", validate_by_name=True, validate_by_alias=True
    )

    runs_dir: Path = Field(
        default=Path("runs"), validation_alias=_shared("RUNS_DIR"), description="Folder that holds the run folders."
    )
    redis_url: str | None = Field(
        default=None, validation_alias=_shared("REDIS_URL"), description="Queue of checkpoints; without it, HTTP alone."
    )
    teacher_url: str | None = Field(
        default=None, validation_alias=_shared("TEACHER_URL"), description="Teacher for story quality; none skips it."
    )
    eval_data: Path | str | None = Field(
        default=None,
        validation_alias=_shared("EVAL_DATA"),
        description="Folder in the BabyLM 2025 evaluation_data layout, or hub:OWNER/NAME[@REVISION], a dataset "
        "repository in that layout; none means generated items.",
    )
    suites: tuple[str, ...] | None = Field(
        default=None,
        min_length=1,
        description="What is measured. None: all that needs no fine-tuning; without evaluation data, what has items of "
        "our own.",
    )
    allowed_dirs: tuple[Path, ...] = Field(
        default=(),
        description="Folders, besides runs_dir and eval_data, whose checkpoints and data HTTP clients may name.",
    )
    worker: str = Field(default_factory=default_worker_name, min_length=1, description="Name in the consumer group.")

    seed: int = Field(default=42, ge=0, description="Of generated items, written stories and bootstrap samples.")
    stories: int | None = Field(default=None, ge=1, description="Stories a checkpoint writes; none: the run's, or 200.")
    prompt: str | None = Field(default=None, min_length=1, description="None: the run's prompt, or the paper's.")
    max_new_tokens: int | None = Field(default=None, ge=1, description="Longest story; none: the run's, or 90.")
    story_batch: int = Field(default=50, ge=1, description="Stories written at once.")
    glue_tasks: tuple[str, ...] | None = Field(
        default=None, min_length=1, description="None: all whose files are there."
    )
    glue_epochs: int | None = Field(default=None, ge=1, description="None: the BabyLM pipeline's, 10, and 30 for wsc.")
    glue_position: Literal["first", "last"] = Field(
        default="first",
        description="Token that is classified. first: as the BabyLM pipeline, but a causal model has read nothing else "
        "there; last: the whole text is read.",
    )
    token_budget: int | None = Field(
        default=None, ge=1, description="Padded tokens in one forward. None: 512, or 8192 on a GPU."
    )

    device: str = Field(default="auto", pattern="^(auto|cpu|cuda(:[0-9]+)?)$", description="auto: CUDA if it is there.")
    backend: Literal["auto", "causal", "mlm", "mntp"] = Field(
        default="auto", description="How texts are scored. auto: mlm where the checkpoint is a masked model."
    )
    dtype: Literal["float32", "bfloat16"] = Field(
        default="float32", description="bfloat16: half the memory; some predictions change."
    )
    trust_remote_code: bool = Field(
        default=False, description="Run the Python files that a checkpoint brings for its model."
    )
    torch_threads: int | None = Field(default=None, ge=1, description="CPU threads of the model; none: half the CPUs.")
    niceness: int = Field(default=5, ge=0, le=19, description="Lowers the service's CPU priority beside a trainer.")

    teacher_chunk: int = Field(default=32, ge=1, description="Stories in one request to the teacher.")
    teacher_timeout_s: float = Field(default=300.0, gt=0.0, description="Longest wait for one answer.")
    teacher_patience_s: float = Field(default=120.0, ge=0.0, description="Longest wait for a busy or absent teacher.")
    lease_s: float = Field(default=30.0, gt=0.0, description="How long a checkpoint is ours before another may try.")
    max_deliveries: int = Field(default=10, ge=1, description="Tries before a checkpoint is given up.")

    @field_validator("redis_url", "teacher_url", "eval_data", mode="before")
    @classmethod
    def _empty_is_unset(cls, value: object) -> object:
        # `FABULA_REDIS_URL=` in a compose file means "none".
        return None if value == "" else value

    @property
    def chosen_suites(self) -> tuple[str, ...]:
        """The suites to be measured, in this order."""
        if self.suites is not None:
            return self.suites
        return WITHOUT_DATA if self.eval_data is None else tuple(s for s in SUITES if s not in ONLY_BY_NAME)

    @field_validator("eval_data")
    @classmethod
    def _folder_or_hub(cls, value: Path | str | None) -> Path | str | None:
        if value is None:
            return None
        return str(value) if str(value).startswith("hub:") else Path(value)

    @field_validator("glue_tasks")
    @classmethod
    def _tasks_are_known(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if unknown := sorted(set(value or ()) - set(GLUE_TASKS)):
            raise ValueError(f"unknown GLUE tasks {unknown}; known are {', '.join(GLUE_TASKS)}")
        return value

    @field_validator("suites")
    @classmethod
    def _suites_are_known(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return None if value is None else known_suites(value)


def explain_settings(error: ValidationError) -> str:
    """Each refused setting on a line, and why."""
    return "\n  ".join(
        f"{'_'.join(map(str, d['loc']))}: {d['msg'].removeprefix('Value error, ')}, found {d['input']!r}"
        for d in error.errors()
    )
