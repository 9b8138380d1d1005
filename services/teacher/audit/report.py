"""What an audit found: for each attack the gain that it brings, with an interval; for texts without a story, the total.

A verdict without numbers is counted and never a number: a pair with a failed or refused side is left out.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from math import sqrt
from random import Random
from statistics import NormalDist, fmean
from typing import Any

from pydantic import Field

from fabula_proto import Message, TeacherIdentity, Verdict, VerdictStatus
from services.teacher.audit.attacks import ATTACKS, IMPOSTORS, SUITE_VERSION, Attack, Impostor
from services.teacher.audit.material import GRADES
from services.teacher.audit.plan import Plan

ROUNDS = 2000
DIGITS = 6  # of numbers in a report: differences of rounding are no gains


class Estimate(Message):
    """A mean with its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float


class Counted(Message):
    """What is counted over the texts of one attack or impostor."""

    family: str
    name: str
    what: str
    texts: int = Field(ge=0, description="Texts that were judged.")
    failed: int = Field(ge=0)
    refused: int = Field(ge=0)
    flagged: float = Field(ge=0.0, le=1.0, description="Share of texts with a flag that the story before lacked.")
    flags: dict[str, int] = Field(description="Such a flag -> number of texts; most frequent first.")


class AttackResult(Counted):
    """What an attack brings: attacked minus original total, over the stories for which both have numbers."""

    pairs: int = Field(ge=0, description="Stories with numbers before and after.")
    gain: Estimate | None = Field(description="Of the total; interval over stories. None with fewer than two pairs.")
    gained: float | None = Field(description="Share of stories whose total rose.")
    largest: float | None = Field(description="Largest gain on one story; negative where all lost.")
    criteria: dict[str, float] | None = Field(description="Mean gain of each criterion, in levels.")

    @property
    def pays(self) -> bool:
        """Whether the interval lies above 0."""
        return self.gain is not None and self.gain.low > 0.0


class ImpostorResult(Counted):
    """What is given for texts that hold no story."""

    total: float | None = Field(description="Mean total. None without a number.")
    largest: float | None = Field(description="Largest total.")
    criteria: dict[str, float] | None = Field(description="Mean level of each criterion.")


class AuditReport(Message):
    """The outcome of an audit. Comparable with another of the same suite, rubric, seed and size."""

    suite: str = Field(description="Version of the attack suite.")
    seed: int
    quick: bool
    teacher: TeacherIdentity
    max_total: int = Field(description="The highest total that the rubric has.")
    verdicts: int
    base: dict[str, float | None] = Field(description="Mean total of the unchanged stories, by our grade for them.")
    attacks: tuple[AttackResult, ...]
    impostors: tuple[ImpostorResult, ...]
    paying: tuple[str, ...] = Field(description="Attacks whose interval lies above 0: holes.")
    above_weak: tuple[str, ...] = Field(description="Impostors whose mean total is above that of the weak stories.")


def summarise(plan: Plan, verdicts: Sequence[Verdict], teacher: TeacherIdentity) -> AuditReport:
    """The report on the verdicts for `plan.texts`, in that order.

    Raises:
        ValueError: there is not one verdict for each text.
    """
    if len(verdicts) != len(plan.texts):
        raise ValueError(f"{len(verdicts)} verdicts for {len(plan.texts)} texts; give one for each, in order")
    rest = iter(verdicts)
    before = _take(rest, len(plan.base))
    attacks = tuple(
        _attack(attack, before, _take(rest, len(texts)), plan)
        for attack, texts in zip(ATTACKS, plan.attacked, strict=True)
    )
    impostors = tuple(
        _impostor(impostor, _take(rest, len(texts)), plan)
        for impostor, texts in zip(IMPOSTORS, plan.impostors, strict=True)
    )
    by_grade = {g: _mean([v.total for v, s in zip(before, plan.base, strict=True) if s.grade == g]) for g in GRADES}
    floor = by_grade["weak"]
    above = tuple(i.name for i in impostors if i.total is not None and floor is not None and i.total > floor)
    return AuditReport(
        suite=SUITE_VERSION,
        seed=plan.seed,
        quick=plan.quick,
        teacher=teacher,
        max_total=len(plan.criteria) * (len(plan.criteria[0].levels) - 1),
        verdicts=len(verdicts),
        base=by_grade,
        attacks=attacks,
        impostors=impostors,
        paying=tuple(a.name for a in attacks if a.pays),
        above_weak=above,
    )


def estimate(values: Sequence[float], seed: int = 0) -> Estimate:
    """Mean of at least two values with its 95 % bootstrap interval. Draws are the same for all attacks.

    Expanded percentile interval (Hesterberg 2015, The American Statistician 69): plain percentiles are too narrow for
    few values; those that give a t interval's width are taken in their place.
    """
    count = len(values)
    means = sorted(sum(map(values.__getitem__, draw)) / count for draw in _draws(count, seed))
    outside = int(ROUNDS * NormalDist().cdf(-_t(count - 1) * sqrt(count / (count - 1))))
    mean, low, high = (round(value, DIGITS) for value in (fmean(values), means[outside], means[-1 - outside]))
    return Estimate(mean=mean, low=low, high=high)


def _t(freedom: int) -> float:
    """97.5 % quantile of Student's t distribution (Cornish-Fisher; within 0.01 from 4 degrees of freedom)."""
    z = NormalDist().inv_cdf(0.975)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return z + sum(term / float(freedom) ** power for power, term in enumerate(terms, 1))


@lru_cache(maxsize=8)
def _draws(count: int, seed: int) -> tuple[tuple[int, ...], ...]:
    rng = Random(seed)
    return tuple(tuple(rng.choices(range(count), k=count)) for _ in range(ROUNDS))


def _take(verdicts: Iterator[Verdict], count: int) -> list[Verdict]:
    return [next(verdicts) for _ in range(count)]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(fmean(known), DIGITS) if known else None


def _attack(attack: Attack, before: Sequence[Verdict], after: Sequence[Verdict], plan: Plan) -> AttackResult:
    pairs = [(b, a) for b, a in zip(before, after, strict=True) if b.criteria and a.criteria]
    gains = [round((a.total or 0.0) - (b.total or 0.0), DIGITS) for b, a in pairs]
    criteria = {
        c.name: _mean(
            [a.criteria[c.name].mean - b.criteria[c.name].mean for b, a in pairs if a.criteria and b.criteria]
        )
        for c in plan.criteria
    }
    return AttackResult(
        **_counted(attack, after, [set(a.flags) - set(b.flags) for b, a in zip(before, after, strict=True)]),
        pairs=len(pairs),
        gain=estimate(gains, plan.seed) if len(gains) > 1 else None,
        gained=sum(g > 0.0 for g in gains) / len(gains) if gains else None,
        largest=max(gains, default=None),
        criteria={name: gain for name, gain in criteria.items() if gain is not None} or None,
    )


def _impostor(impostor: Impostor, given: Sequence[Verdict], plan: Plan) -> ImpostorResult:
    criteria = {c.name: _mean([v.criteria[c.name].mean for v in given if v.criteria]) for c in plan.criteria}
    return ImpostorResult(
        **_counted(impostor, given, [set(v.flags) for v in given]),
        total=_mean([v.total for v in given]),
        largest=max((v.total for v in given if v.total is not None), default=None),
        criteria={name: level for name, level in criteria.items() if level is not None} or None,
    )


def _counted(kind: Attack | Impostor, verdicts: Sequence[Verdict], new_flags: Sequence[set[str]]) -> dict[str, Any]:
    flags = Counter(flag for found in new_flags for flag in sorted(found))
    return {
        "family": kind.family,
        "name": kind.name,
        "what": kind.what,
        "texts": len(verdicts),
        "failed": sum(v.status is VerdictStatus.FAILED for v in verdicts),
        "refused": sum(v.status is VerdictStatus.REFUSED for v in verdicts),
        "flagged": sum(bool(found) for found in new_flags) / len(verdicts),
        "flags": dict(flags.most_common()),
    }
