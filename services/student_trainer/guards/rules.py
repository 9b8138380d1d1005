"""When an alarm is raised. Pure functions of what was seen so far, so that a run that was killed raises the same ones.

A guard averages what it watches over its window and compares the mean with its threshold. It raises an alarm when that
passes the threshold and did not at any of the `window` looks before: what stays bad, or flickers, is one alarm.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from statistics import fmean
from typing import Generic, Self, TypeVar

from pydantic import BaseModel, ConfigDict

from fabula_proto import Alarm, AlarmAction, CanaryCheck, HeldOutCheck, StepMetrics, TeacherIdentity, Watch
from services.student_trainer.guard_settings import GuardsSettings
from services.student_trainer.guards.canaries import drift
from services.student_trainer.guards.held_out import parting

Point = TypeVar("Point")


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
    """What a guard makes of what it has seen."""

    passed: bool
    value: float | None
    threshold: float | None
    message: str


@dataclass(frozen=True)
class Rule(Generic[Point]):
    """A guard: what it takes of an update (none: it did not look), and what it makes of the series."""

    guard: str
    action: AlarmAction
    quiet: int  # looks without a passed threshold that must come before an alarm
    look: Callable[[Seen], Point | None]
    read: Callable[[Sequence[Point]], Reading | None]

    def alarm(self, run: str, history: Sequence[Seen]) -> Alarm | None:
        """The alarm that the last update of `history` raises."""
        points = [point for seen in history if (point := self.look(seen)) is not None]
        if not points or self.look(history[-1]) is None:
            return None
        now = self.read(points)
        if now is None or not now.passed or any(self._passed(points[:-ago]) for ago in range(1, self.quiet + 1)):
            return None
        return Alarm(
            run=run,
            step=history[-1].step,
            guard=self.guard,
            value=now.value,
            threshold=now.threshold,
            action=self.action,
            message=now.message,
        )

    def _passed(self, points: Sequence[Point]) -> bool:
        reading = self.read(points) if points else None
        return reading is not None and reading.passed


def raised(run: str, history: Sequence[Seen], settings: GuardsSettings) -> list[Alarm]:
    """The alarms that the last update of `history` raises."""
    found = (rule.alarm(run, history) for rule in _rules(settings))
    return [alarm for alarm in found if alarm is not None]


def _rules(settings: GuardsSettings) -> list[Rule]:  # type: ignore[type-arg]  # each has points of its own
    held_out, canaries, failed = settings.held_out, settings.canaries, settings.failed
    repetition, kl, length = settings.repetition, settings.kl, settings.length
    distinct, spread = settings.distinct, settings.zero_variance
    return [
        Rule("held_out", held_out.action, held_out.window, _held_out_point, lambda p: _held_out(p, settings)),
        Rule("held_out", held_out.action, held_out.window, lambda seen: seen.watch.held_out, _silent),
        Rule("held_out", held_out.action, held_out.window, _held_out_point, _same_teacher),
        Rule("canaries", canaries.action, canaries.window, _canary_point, lambda p: _canaries(p, settings)),
        Rule("teacher", canaries.action, 0, lambda seen: (seen.step, seen.watch.teachers), _teacher),
        Rule(
            "repetition",
            repetition.action,
            repetition.window,
            lambda seen: seen.watch.repetition,
            lambda p: _mean_above(
                p, repetition.window, repetition.threshold, "{:.0%} of word trigrams repeat earlier ones"
            ),
        ),
        Rule(
            "kl",
            kl.action,
            kl.window,
            lambda seen: seen.kl_mean,
            lambda p: _mean_above(p, kl.window, kl.threshold, "the student is {:.3g} nats a story from its reference"),
        ),
        Rule(
            "length",
            length.action,
            length.window,
            lambda seen: seen.watch.length_correlation,
            lambda p: _mean_above(p, length.window, length.threshold, "words and reward correlate by {:.2f}"),
        ),
        Rule(
            "failed",
            failed.action,
            failed.window,
            lambda seen: seen.verdicts_failed / seen.stories,
            lambda p: _mean_above(p, failed.window, failed.threshold, "{:.1%} of stories came back without a verdict"),
        ),
        Rule(
            "distinct",
            distinct.action,
            distinct.window,
            lambda seen: seen.watch.distinct_bigrams,
            lambda p: _distinct(p, distinct.window, distinct.threshold),
        ),
        Rule(
            "zero_variance",
            spread.action,
            spread.window,
            lambda seen: seen.watch.criteria_spread or None,
            lambda p: _zero_variance(p, spread.window, spread.threshold),
        ),
    ]


def _mean_above(points: Sequence[float], window: int, threshold: float, means: str) -> Reading:
    """Updates that the window still lacks count as 0: what is far past its limit need not wait for them."""
    recent = points[-window:]
    value = fmean(recent)
    message = f"{means.format(value)}, mean of {len(recent)} updates; the limit is {threshold:g}"
    return Reading(sum(recent) / window > threshold, value, threshold, message)


def _distinct(points: Sequence[float], window: int, threshold: float) -> Reading | None:
    """The last updates against the first ones."""
    if len(points) < 2 * window or (first := fmean(points[:window])) == 0.0:
        return None
    value = fmean(points[-window:]) / first
    message = (
        f"stories resemble each other: {value:.0%} of the distinct bigrams of the first {window} updates are left; "
        f"the limit is {threshold:.0%}"
    )
    return Reading(value < threshold, value, threshold, message)


def _zero_variance(points: Sequence[dict[str, float]], window: int, threshold: float) -> Reading | None:
    recent = points[-window:]
    if len(points) < window or not (names := set(recent[0]).intersection(*recent)):
        return None
    spreads = {name: fmean(point[name] for point in recent) for name in sorted(names)}
    flat = [name for name, value in spreads.items() if value < threshold]
    value = min(spreads.values())
    message = (
        f"{', '.join(flat)}: every story of a batch gets the same level, so that nothing is learned from it (standard "
        f"deviation {value:.4f} levels, mean of {window} updates; the limit is {threshold:g})"
    )
    return Reading(bool(flat), value, threshold, message)


_HeldOutPoint = tuple[HeldOutCheck, tuple[TeacherIdentity, ...]]


def _held_out_point(seen: Seen) -> _HeldOutPoint | None:
    check = seen.watch.held_out
    return None if check is None or check.stories < 2 else (check, seen.watch.teachers)


def _held_out(points: Sequence[_HeldOutPoint], settings: GuardsSettings) -> Reading | None:
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


def _silent(checks: Sequence[HeldOutCheck]) -> Reading:
    """A check that compares nothing must not pass for one that found nothing."""
    message = f"the held-out check of this update compares nothing: {checks[-1].reason}"
    return Reading(checks[-1].stories < 2, None, None, message)


def _same_teacher(points: Sequence[_HeldOutPoint]) -> Reading:
    """The training teacher can never part from itself."""
    check, teachers = points[-1]
    message = f"the held-out teacher is the one that the student learns from, {_names([check.teacher])}; name another"
    return Reading(check.teacher in teachers, None, None, message)


_CanaryPoint = tuple[int, CanaryCheck]


def _canary_point(seen: Seen) -> _CanaryPoint | None:
    check = seen.watch.canaries
    usable = check is not None and any(reward is not None for reward in check.rewards.values())
    return (seen.step, check) if check is not None and usable else None


def _canaries(points: Sequence[_CanaryPoint], settings: GuardsSettings) -> Reading | None:
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


def _teacher(points: Sequence[tuple[int, tuple[TeacherIdentity, ...]]]) -> Reading | None:
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
