"""When an alarm is raised. Pure functions of what was seen so far, so that a run that was killed raises the same ones.

A guard averages what it watches over its window and compares the mean with its threshold. It raises an alarm when that
passes the threshold and did not at any of the `window` looks before: what stays bad, or flickers, is one alarm.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from fabula_proto import Alarm, AlarmAction
from services.student_trainer.guard_settings import (
    FailedGuard,
    GuardsSettings,
    KLGuard,
    LengthGuard,
    RepetitionGuard,
)
from services.student_trainer.guards import readings
from services.student_trainer.guards.readings import Reading, Seen

Point = TypeVar("Point")


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
    held_out, canaries = settings.held_out, settings.canaries
    distinct, spread = settings.distinct, settings.zero_variance
    checks = ("held_out", held_out.action, held_out.window)
    return [
        Rule(*checks, readings.held_out_point, lambda points: readings.held_out(points, settings)),
        Rule(*checks, lambda seen: seen.watch.held_out, readings.silent),
        Rule(*checks, readings.held_out_point, readings.same_teacher),
        Rule(
            "canaries",
            canaries.action,
            canaries.window,
            readings.canary_point,
            lambda points: readings.canaries(points, settings),
        ),
        Rule("teacher", canaries.action, 0, lambda seen: (seen.step, seen.watch.teachers), readings.teacher),
        _mean_above(
            "repetition",
            settings.repetition,
            lambda seen: seen.watch.repetition,
            "{:.0%} of word trigrams repeat earlier ones",
        ),
        _mean_above(
            "kl", settings.kl, lambda seen: seen.kl_mean, "the student is {:.3g} nats a story from its reference"
        ),
        _mean_above(
            "length",
            settings.length,
            lambda seen: seen.watch.length_correlation,
            "words and reward correlate by {:.2f}",
        ),
        _mean_above(
            "failed",
            settings.failed,
            lambda seen: seen.verdicts_failed / seen.stories,
            "{:.1%} of stories came back without a verdict",
        ),
        Rule(
            "distinct",
            distinct.action,
            distinct.window,
            lambda seen: seen.watch.distinct_bigrams,
            lambda points: readings.distinct(points, distinct.window, distinct.threshold),
        ),
        Rule(
            "zero_variance",
            spread.action,
            spread.window,
            lambda seen: seen.watch.criteria_spread or None,
            lambda points: readings.zero_variance(points, spread.window, spread.threshold),
        ),
    ]


def _mean_above(
    guard: str,
    options: RepetitionGuard | KLGuard | LengthGuard | FailedGuard,
    look: Callable[[Seen], float | None],
    means: str,
) -> Rule[float]:
    """A guard whose mean may not pass its threshold; `means` says in words what the mean is."""
    window, threshold = options.window, options.threshold
    return Rule(
        guard, options.action, window, look, lambda points: readings.mean_above(points, window, threshold, means)
    )
