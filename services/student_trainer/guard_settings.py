"""Settings of the guards. docs/guards.md says where the default thresholds come from."""

from typing import Self

from pydantic import Field

from fabula_proto import AlarmAction
from services.student_trainer.learning_settings import Settings


class GuardSettings(Settings):
    """What every guard has."""

    action: AlarmAction = Field(
        default="note", description="note: go on; pause: wait until the file PAUSED is removed; stop: end the process."
    )
    window: int = Field(default=5, ge=1, description="Updates that are averaged.")


class HeldOutGuard(GuardSettings):
    """Another teacher judges a sample: does what is learned please it too?"""

    teacher: str | None = Field(
        default=None, description="Name of the held-out teacher, see GET /teachers, such as rules; none: no guard."
    )
    every: int = Field(default=5, ge=1, description="In updates.")
    stories: int = Field(default=32, ge=2, description="Size of a sample; of the first update all stories are taken.")
    window: int = Field(default=3, ge=1, description="Checks that are averaged and compared with the first one.")
    threshold: float = Field(
        default=0.1, ge=0, le=1, description="How much more the training reward (0..1) may rise than the held-out one."
    )


class CanaryGuard(GuardSettings):
    """Stories that never change: does the teacher still judge as it did? Its identity is watched at every update."""

    every: int | None = Field(default=25, ge=1, description="In updates; none: canaries are not judged.")
    window: int = Field(default=1, ge=1, description="Checks that are averaged.")
    threshold: float = Field(default=0.05, ge=0, le=1, description="Mean absolute change of their rewards (0..1).")


class RepetitionGuard(GuardSettings):
    """Stories that go in circles."""

    threshold: float = Field(default=0.25, gt=0, lt=1, description="Share of a story's trigrams that repeat.")


class DistinctGuard(GuardSettings):
    """Stories that become one story."""

    threshold: float = Field(
        default=0.5, gt=0, lt=1, description="Share of the first updates' distinct bigrams that must be left."
    )


class LengthGuard(GuardSettings):
    """A teacher that pays by the word."""

    threshold: float = Field(default=0.85, ge=0, lt=1, description="Correlation of words and reward within a batch.")


class KLGuard(GuardSettings):
    """A student that has left its reference far behind."""

    threshold: float = Field(default=25.0, gt=0, description="KL per story, in nats.")


class SpreadGuard(GuardSettings):
    """A criterion that is the same for every story teaches nothing."""

    threshold: float = Field(default=0.005, gt=0, description="Standard deviation over a batch, in levels.")


class FailedGuard(GuardSettings):
    """Verdicts that are missing. Past interact.max_failed_share of one batch the run stops in any case."""

    threshold: float = Field(default=0.02, ge=0, le=1, description="Share of verdicts.")


class GuardsSettings(Settings):
    """What is watched in every run."""

    held_out: HeldOutGuard = HeldOutGuard()
    canaries: CanaryGuard = CanaryGuard()
    repetition: RepetitionGuard = RepetitionGuard()
    distinct: DistinctGuard = DistinctGuard()
    length: LengthGuard = LengthGuard()
    kl: KLGuard = KLGuard()
    zero_variance: SpreadGuard = SpreadGuard()
    failed: FailedGuard = FailedGuard()

    def for_replay(self) -> Self:
        """The same where there is no teacher to ask, and where somebody has already gone on after each alarm."""
        changes: dict[str, dict[str, object]] = {name: {"action": "note"} for name in type(self).model_fields}
        changes["held_out"]["teacher"] = None
        changes["canaries"]["every"] = None
        guards = {name: getattr(self, name).model_copy(update=update) for name, update in changes.items()}
        return self.model_copy(update=guards)
