"""What a run's guards saw at an update, and the alarms that they raised."""

from typing import Literal

from pydantic import Field

from fabula_proto.base import Message
from fabula_proto.verdicts import Probability, TeacherIdentity

AlarmAction = Literal["note", "pause", "stop"]


class HeldOutCheck(Message):
    """A sample of an update's stories, judged by the teacher in training and by another one. Rewards are 0..1."""

    teacher: TeacherIdentity = Field(description="The held-out teacher.")
    stories: int = Field(ge=0, description="Stories with a verdict from both; without one there are no numbers.")
    failed: int = Field(ge=0, description="Stories of the sample that lack one of the two.")
    reason: str | None = Field(default=None, description="Why the first of these has none.")
    training_mean: Probability | None = None
    held_out_mean: Probability | None = None
    gap_mean: float | None = Field(default=None, description="Mean over stories of training minus held-out reward.")
    gap_variance: float | None = Field(
        default=None, ge=0.0, description="Variance of the gap (n - 1); 0 for one story."
    )


class CanaryCheck(Message):
    """Stories that never change, judged by the teacher in training."""

    teacher: TeacherIdentity
    rewards: dict[str, Probability | None] = Field(description="By canary, 0..1; none where its verdict is not ok.")


class Watch(Message):
    """What is watched of an update besides its metrics. Everything that guards remember stands here."""

    repetition: Probability = Field(
        description="Share of a story's word trigrams that occurred in it before, mean over stories."
    )
    distinct_bigrams: Probability = Field(description="Distinct word bigrams of all stories over all their bigrams.")
    length_slope: float | None = Field(
        description="Least-squares slope of the teacher's reward on the story's words, per word; none where all are of "
        "one length."
    )
    length_correlation: float | None = Field(
        default=None, description="Correlation of the two (Pearson), -1..1; none where one of them does not vary."
    )
    criteria_spread: dict[str, float] = Field(description="Standard deviation of a criterion over stories, in levels.")
    teachers: tuple[TeacherIdentity, ...] = Field(description="Who judged the update's stories, each once.")
    held_out: HeldOutCheck | None = None
    canaries: CanaryCheck | None = None


class Alarm(Message):
    """A line of metrics.jsonl: something that a guard watches passed its threshold after this update."""

    phase: Literal["alarm"] = "alarm"
    run: str
    step: int = Field(ge=0, description="Update after which it was raised, from 0.")
    guard: str = Field(description="Name of the guard, such as held_out or repetition.")
    value: float | None = Field(description="What was measured; none where no number was, as when a teacher changed.")
    threshold: float | None
    action: AlarmAction = Field(description="What the run does: goes on, waits for somebody, or stops.")
    message: str = Field(description="What it means, in a sentence.")
