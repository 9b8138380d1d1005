"""What each guard reads in what was seen so far. Pure: a series of points in, a reading out."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from statistics import fmean
from typing import Self

from pydantic import BaseModel, ConfigDict

from fabula_proto import CanaryCheck, HeldOutCheck, StepMetrics, TeacherIdentity, Watch
from services.student_trainer.guard_settings import GuardsSettings
from services.student_trainer.guards.canaries import drift
from services.student_trainer.guards.held_out import parting


class Seen(BaseModel):
    """What guards remember of an update: a part of its line in metrics.jsonl."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    step: int
    stories: int
    verdicts_failed: int
    kl_mean: float
    watch: Watch

    @classmethod
    def of(cls, metrics: StepMetrics, watch: Watch) -> Self:
        """The update that `metrics` speaks of."""
        return cls(
            step=metrics.step,
            stories=metrics.stories,
            verdicts_failed=metrics.verdicts_failed,
            kl_mean=metrics.kl_mean,
            watch=watch,
        )


@dataclass(frozen=True)
class Reading:
    """What a guard makes of what it has seen; none where it has seen too little."""

    passed: bool
    value: float | None
    threshold: float | None
    message: str


def mean_above(points: Sequence[float], window: int, threshold: float, means: str) -> Reading:
    """Updates that the window still lacks count as 0: what is far past its limit need not wait for them."""
    recent = points[-window:]
    value = sum(recent) / window
    lacking = window - len(recent)
    note = f", of which {lacking} {'is' if lacking == 1 else 'are'} still to come and count as 0" if lacking else ""
    message = f"{means.format(value)}, mean of {window} updates{note}; the limit is {threshold:g}"
    return Reading(value > threshold, value, threshold, message)


def distinct(points: Sequence[float], window: int, threshold: float) -> Reading | None:
    """The last updates against the first ones."""
    if len(points) < 2 * window or (first := fmean(points[:window])) == 0.0:
        return None
    value = fmean(points[-window:]) / first
    message = (
        f"stories resemble each other: {value:.0%} of the distinct bigrams of the first {window} updates are left; "
        f"the limit is {threshold:.0%}"
    )
    return Reading(value < threshold, value, threshold, message)


def zero_variance(points: Sequence[dict[str, float]], window: int, threshold: float) -> Reading | None:
    """Whether a criterion hardly varies; a point holds each criterion's standard deviation, in levels."""
    recent = points[-window:]
    if len(points) < window or not (names := set(recent[0]).intersection(*recent)):
        return None
    spreads = {name: fmean(point[name] for point in recent) for name in sorted(names)}
    flat = [f"{name} varies by {value:.3g} levels" for name, value in spreads.items() if value < threshold]
    message = (
        f"{', '.join(flat)} within a batch (standard deviation, mean of {window} updates; the limit is {threshold:g}): "
        "the less a criterion varies, the less is learned from it"
    )
    return Reading(bool(flat), min(spreads.values()), threshold, message)


HeldOutPoint = tuple[HeldOutCheck, tuple[TeacherIdentity, ...]]


def held_out_point(seen: Seen) -> HeldOutPoint | None:
    """A check that compares something, and the teachers of that update."""
    check = seen.watch.held_out
    return None if check is None or check.stories < 2 else (check, seen.watch.teachers)


def held_out(points: Sequence[HeldOutPoint], settings: GuardsSettings) -> Reading | None:
    """Only checks since one of the teachers changed last can be compared."""
    window, threshold = settings.held_out.window, settings.held_out.threshold
    last, teachers = points[-1]
    same = list(takewhile(lambda p: (p[0].teacher, p[1]) == (last.teacher, teachers), reversed(points)))
    found = parting([check for check, _ in reversed(same)], window)
    if found is None:
        return None
    message = (
        f"since the first check the teacher's mean reward changed by {found.training:+.3f}, and that of "
        f"{settings.held_out.teacher}, which nothing is learned from, by {found.held_out:+.3f}: they part by "
        f"{found.gap:.3f}, at least {found.low:.3f} with 95 % confidence; the limit is {threshold:g}"
    )
    return Reading(found.gap > threshold and found.low > 0.0, found.gap, threshold, message)


def silent(checks: Sequence[HeldOutCheck]) -> Reading:
    """A check that compares nothing must not pass for one that found nothing."""
    message = f"the held-out check of this update compares nothing: {checks[-1].reason}"
    return Reading(checks[-1].stories < 2, None, None, message)


def same_teacher(points: Sequence[HeldOutPoint]) -> Reading:
    """The training teacher can never part from itself."""
    check, teachers = points[-1]
    message = f"the held-out teacher is the one that the student learns from, {_names([check.teacher])}; name another"
    return Reading(check.teacher in teachers, None, None, message)


CanaryPoint = tuple[int, CanaryCheck]


def canary_point(seen: Seen) -> CanaryPoint | None:
    """The update and its check, where a canary has a verdict."""
    check = seen.watch.canaries
    usable = check is not None and any(reward is not None for reward in check.rewards.values())
    return (seen.step, check) if check is not None and usable else None


def canaries(points: Sequence[CanaryPoint], settings: GuardsSettings) -> Reading | None:
    """The reference is the first check of the same teacher: where its identity changed, that is an alarm of its own."""
    window, threshold = settings.canaries.window, settings.canaries.threshold
    same = list(takewhile(lambda p: p[1].teacher == points[-1][1].teacher, reversed(points)))
    step, reference = same[-1]
    changes = [c for _, check in same[:window] if (c := drift(reference.rewards, check.rewards)) is not None]
    if not changes:
        return None
    value = fmean(changes)
    message = (
        f"the teacher calls itself the same and judges otherwise: the canaries' rewards differ from those of update "
        f"{step} by {value:.3f} on average; the limit is {threshold:g}"
    )
    return Reading(value > threshold, value, threshold, message)


def teacher(points: Sequence[tuple[int, tuple[TeacherIdentity, ...]]]) -> Reading | None:
    """Whether others judged than the time before; a point is an update and its teachers."""
    if len(points) < 2:
        return None
    (_, before), (step, now) = points[-2:]
    message = f"update {step} was judged by {_names(now)}, the one before by {_names(before)}"
    return Reading(now != before, None, None, message)


def _names(teachers: Sequence[TeacherIdentity]) -> str:
    return " and ".join(
        f"{t.backend}:{t.model} ({t.revision}; {t.rubric} {t.rubric_version} {t.rubric_hash}; {t.mode})"
        for t in teachers
    )
