"""What the evaluator says of a checkpoint."""

from typing import Literal, Self

from pydantic import Field, model_validator

from fabula_proto.base import Message
from fabula_proto.verdicts import TeacherIdentity


class Measure(Message):
    """A mean with its 95 % bootstrap interval over items."""

    value: float
    low: float
    high: float
    n: int = Field(ge=1, description="Number of items (pairs, questions, stories) behind the value.")

    @model_validator(mode="after")
    def _interval_is_ordered(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"interval [{self.low}, {self.high}] is empty; expected low <= high")
        return self


class SuiteResult(Message):
    """One suite's outcome. A suite that failed or had no data carries no numbers and says why."""

    suite: str = Field(description="Such as blimp, entity_tracking or storytelling.")
    status: Literal["ok", "failed", "skipped"]
    source: str = Field(description="Where the items came from: a folder, or `generated` for the evaluator's own.")
    headline: str | None = Field(default=None, description="Key of `measures` that stands for the suite.")
    unit: str | None = Field(default=None, description="Such as accuracy (0..1) or points (story score).")
    measures: dict[str, Measure] = Field(default_factory=dict, description="Headline, and parts by name.")
    reason: str | None = None
    seconds: float = Field(default=0.0, ge=0.0)
    results_path: str | None = Field(
        default=None,
        description="Where its files lie below results/<model>/<revision>/ of the BabyLM 2025 pipeline; none: nowhere.",
    )
    teacher: TeacherIdentity | None = Field(default=None, description="Who judged, for storytelling.")

    @model_validator(mode="after")
    def _numbers_iff_ok(self) -> Self:
        if self.status == "ok":
            if self.headline is None or self.headline not in self.measures:
                raise ValueError(f"suite {self.suite}: headline {self.headline!r} is not among its measures")
        elif self.measures or not self.reason:
            raise ValueError(f"suite {self.suite}: a {self.status} suite carries a reason and no measures")
        return self


class SampleStory(Message):
    """A story the evaluator had the checkpoint write, kept for reading."""

    seed: int
    prompt: str
    text: str
    total: float | None = Field(default=None, description="Teacher's total; none where the verdict was not ok.")


class EvaluationReport(Message):
    """Everything measured on one checkpoint."""

    run: str
    checkpoint: str
    path: str
    stage: Literal["pretrain", "interact"]
    pretraining_words: int = Field(ge=0)
    interaction_words: int = Field(ge=0)
    suites: tuple[SuiteResult, ...]
    stories: tuple[SampleStory, ...] = Field(default=(), description="A few of the stories behind storytelling.")
    seconds: float = Field(ge=0.0)
    worker: str
