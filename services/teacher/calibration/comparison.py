"""How far two teachers agree on the same stories, and the map from B's reward to A's scale."""

from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import Field

from fabula_proto import CriterionScore, Message, TeacherIdentity, Verdict
from services.teacher.calibration.estimates import Estimate, estimates
from services.teacher.calibration.linking import LinkingError, ScaleError, equipercentile, held_out, scale_error
from services.teacher.calibration.reasons import Reason, reasons
from services.teacher.calibration.reward_map import RewardMap
from services.teacher.calibration.statistics import FloatArray, confusion, kappas, moments, rank_correlations

TOO_SHORT = "too_short"


class ComparisonError(ValueError):
    """These verdicts cannot be compared; the message says why."""


@dataclass(frozen=True)
class Side:
    """One teacher's verdicts for N stories, in their order; None where a recording does not know the story."""

    name: str  # as the user wrote it
    teacher: TeacherIdentity
    verdicts: Sequence[Verdict | None]


class SideSummary(Message):
    """Who judged, and what became of the stories."""

    name: str
    teacher: TeacherIdentity
    ok: int
    failed: int
    refused: int
    absent: int = Field(description="Stories that a recording does not know.")
    reasons: tuple[Reason, ...] = Field(description="The most frequent reason of those that failed and were refused.")


class Agreement(Message):
    """Agreement of A and B on one number: a criterion, the total or the reward."""

    name: str
    kappa: Estimate = Field(
        description="Quadratic weighted kappa of the most probable levels, for the total of its nearest whole number; "
        "for the reward, which has no levels, Lin's concordance correlation."
    )
    spearman: Estimate = Field(description="Rank correlation of expected levels.")
    bias: Estimate = Field(description="Mean of B minus mean of A.")
    mean_a: float
    mean_b: float
    confusion: list[list[int]] | None = Field(description="Rows: level by A; columns: level by B. None for the reward.")


class MapReport(Message):
    """The map from B's reward to A's scale, and what it mends."""

    reward_map: RewardMap
    before: ScaleError
    after: ScaleError = Field(description="Each story's reward mapped by a map fitted without its fold.")


class Comparison(Message):
    """Everything `fabula teacher compare` says."""

    a: SideSummary
    b: SideSummary
    stories: int
    pairs: int = Field(description="Stories with an ok verdict on both sides: all numbers are over these.")
    groups: int = Field(description="What the bootstrap draws: prompts, or stories where there are too few prompts.")
    not_shared: tuple[str, ...] = Field(description="Criteria of one side alone: left out, and the total with them.")
    agreement: tuple[Agreement, ...]
    mapping: MapReport | None
    no_map: str | None = Field(description="Why there is no map.")


@dataclass(frozen=True)
class _Pair:
    """The ok verdicts of one story."""

    a: "_Numbers"
    b: "_Numbers"
    group: Hashable


@dataclass(frozen=True)
class _Numbers:
    criteria: dict[str, CriterionScore]
    total: float
    reward: float
    too_short: bool

    @classmethod
    def of(cls, verdict: Verdict | None) -> "_Numbers | None":
        if verdict is None or verdict.criteria is None or verdict.total is None or verdict.reward is None:
            return None
        return cls(verdict.criteria, verdict.total, verdict.reward, TOO_SHORT in verdict.flags)


def compare(a: Side, b: Side, groups: Sequence[Hashable], created_by: str) -> Comparison:
    """Compare two sides on their N stories; `groups` says which stories the bootstrap draws together.

    Raises:
        ComparisonError: fewer than 2 stories have an ok verdict on both sides, no criterion is shared, or the sides
            have different levels.
    """
    numbers = [(_Numbers.of(x), _Numbers.of(y), g) for x, y, g in zip(a.verdicts, b.verdicts, groups, strict=True)]
    pairs = [_Pair(x, y, g) for x, y, g in numbers if x is not None and y is not None]
    summary_a, summary_b = _summary(a), _summary(b)
    if len(pairs) < 2:
        raise ComparisonError(
            f"{len(pairs)} of {len(groups)} stories have an ok verdict on both sides and at least 2 are needed; "
            f"{_counts(summary_a)}; {_counts(summary_b)}"
        )
    mapping, no_map = _map(a.teacher, b.teacher, pairs, created_by)
    return Comparison(
        a=summary_a,
        b=summary_b,
        stories=len(groups),
        pairs=len(pairs),
        groups=len({pair.group for pair in pairs}),
        not_shared=tuple(sorted(pairs[0].a.criteria.keys() ^ pairs[0].b.criteria.keys())),
        agreement=tuple(_rows(a.name, b.name, pairs)),
        mapping=mapping,
        no_map=no_map,
    )


def _rows(name_a: str, name_b: str, pairs: Sequence[_Pair]) -> Iterator[Agreement]:
    names_a, names_b = list(pairs[0].a.criteria), list(pairs[0].b.criteria)
    shared = [name for name in names_a if name in names_b]
    if not shared:
        raise ComparisonError(
            f"{name_a} judges {', '.join(names_a)} and {name_b} judges {', '.join(names_b)}: no criterion is shared; "
            "give both the same rubric"
        )
    groups = [pair.group for pair in pairs]
    top = 0
    for name in shared:
        scores = [(pair.a.criteria[name], pair.b.criteria[name]) for pair in pairs]
        levels = {len(score.probabilities) for pair in scores for score in pair}
        if len(levels) > 1:
            raise ComparisonError(f"{name} is judged on {sorted(levels)} levels; give both rubrics with as many levels")
        count = levels.pop()
        top += count - 1
        yield _agreement(
            name, [(x.mean, y.mean) for x, y in scores], groups, [(x.mode, y.mode) for x, y in scores], count
        )
    if set(names_a) == set(names_b):
        totals = [(pair.a.total, pair.b.total) for pair in pairs]
        whole = [(int(x + 0.5), int(y + 0.5)) for x, y in totals]
        yield _agreement("total", totals, groups, whole, top + 1)
    yield _agreement("reward", [(pair.a.reward, pair.b.reward) for pair in pairs], groups)


def _agreement(
    name: str,
    values: Sequence[tuple[float, float]],
    groups: Sequence[Hashable],
    levels: Sequence[tuple[int, int]] | None = None,
    count: int = 0,
) -> Agreement:
    """Agreement of N pairs of values; kappa and the table are of `levels`, each one of 0..count-1, where given."""
    a_N, b_N = np.asarray(values, dtype=np.float64).T
    level_a_N, level_b_N = np.asarray(values if levels is None else levels, dtype=np.float64).T

    def statistics(weights_BN: FloatArray) -> list[FloatArray]:
        mean_BK, _ = moments([a_N, b_N], weights_BN)
        rho_B = rank_correlations([a_N, b_N], weights_BN)[:, 0, 1]
        return [kappas(level_a_N, level_b_N, weights_BN), rho_B, mean_BK[:, 1] - mean_BK[:, 0]]

    kappa, rho, shift = estimates(statistics, groups)
    table = None if levels is None else confusion([x for x, _ in levels], [y for _, y in levels], count)
    mean_a, mean_b = float(a_N.mean()), float(b_N.mean())
    return Agreement(name=name, kappa=kappa, spearman=rho, bias=shift, mean_a=mean_a, mean_b=mean_b, confusion=table)


def _map(
    a: TeacherIdentity, b: TeacherIdentity, pairs: Sequence[_Pair], created_by: str
) -> tuple[MapReport | None, str | None]:
    # A story too short to be judged is 0 on both sides, whatever the map.
    fitted = [pair for pair in pairs if not (pair.a.too_short and pair.b.too_short)]
    rewards_a, rewards_b = [pair.a.reward for pair in fitted], [pair.b.reward for pair in fitted]
    try:
        knots = equipercentile(rewards_a, rewards_b)
        after = scale_error(rewards_a, held_out(rewards_a, rewards_b, [pair.group for pair in fitted]))
    except LinkingError as error:
        return None, str(error)
    reward_map = RewardMap(from_teacher=b, to_teacher=a, knots=knots, stories=len(fitted), created_by=created_by)
    return MapReport(reward_map=reward_map, before=scale_error(rewards_a, rewards_b), after=after), None


def _summary(side: Side) -> SideSummary:
    counts = Counter("absent" if v is None else v.status.value for v in side.verdicts)
    return SideSummary(
        name=side.name,
        teacher=side.teacher,
        ok=counts["ok"],
        failed=counts["failed"],
        refused=counts["refused"],
        absent=counts["absent"],
        reasons=reasons(side.verdicts),
    )


def _counts(summary: SideSummary) -> str:
    counts = f"{summary.ok} ok, {summary.failed} failed, {summary.refused} refused, {summary.absent} absent"
    return f"{summary.name}: {counts}{''.join(f' ({reason})' for reason in summary.reasons)}"
