"""How far a teacher agrees with people, next to word count, to other judges of the same stories, and to the ceiling."""

import math
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from statistics import harmonic_mean
from typing import Literal

import numpy as np
from pydantic import Field

from fabula_proto import Message, TeacherIdentity, Verdict, VerdictStatus
from services.teacher.calibration.estimates import Estimate, estimates, groups_by_prompt
from services.teacher.calibration.ratings import HUMAN, Rated, criteria_of, judges_of
from services.teacher.calibration.reasons import Reason, reasons
from services.teacher.calibration.statistics import (
    FloatArray,
    half_splits,
    partials,
    rank_correlations,
    split_halves,
    stepped_up,
)

# Which human criterion says most about which of ours. HANNA has none for readability: its rows are for information.
PAIRS = (
    ("coherence", "coherence"),
    ("creativity", "surprise"),
    ("creativity", "engagement"),
    ("creativity", "complexity"),
    ("readability", "coherence"),
    ("readability", "complexity"),
)
MIN_STORIES = 10
TOTAL = "total"


class CalibrationError(ValueError):
    """These verdicts and ratings give no agreement; the message says why."""


class HumanAgreement(Message):
    """Agreement of a judge with the mean human rating of one criterion, and of word count on the same stories."""

    human: str = Field(description="The human criterion.")
    kind: Literal["teacher", "llm"]
    judge: str = Field(description="The teacher's own criterion, or the name of a language model of the file.")
    n: int = Field(description="Stories with both numbers.")
    spearman: Estimate
    words: Estimate = Field(description="Rank correlation of word count alone.")
    beyond_words: Estimate = Field(description="spearman - words, of the same draws.")
    given_words: Estimate = Field(description="Rank correlation at equal log words.")


class Ceiling(Message):
    """How far people agree with each other on one criterion."""

    human: str
    n: int
    raters: float = Field(description="Harmonic mean of the raters a story.")
    halves: Estimate = Field(description="Rank correlation of two halves of the raters, averaged over splits.")
    reliability: float | None = Field(description="Of the mean rating (Spearman-Brown); None where halves <= 0.")
    ceiling: float | None = Field(
        description="Its square root: the most a judge can reach if raters err independently."
    )


class Calibration(Message):
    """Everything `fabula teacher calibrate` says."""

    ratings: str
    selection: str = Field(description="Which stories of the file.")
    teacher: TeacherIdentity
    stories: int
    prompts: int
    ok: int
    failed: int
    refused: int
    absent: int = Field(description="Stories that a recording does not know.")
    reasons: tuple[Reason, ...] = Field(description="The most frequent reason of those that failed and were refused.")
    agreement: tuple[HumanAgreement, ...]
    ceilings: tuple[Ceiling, ...]


@dataclass(frozen=True)
class _Judged:
    rated: Rated
    verdict: Verdict | None
    group: Hashable

    def own(self, name: str) -> float | None:
        """The teacher's number: a criterion's expected level, or the total."""
        if self.verdict is None or self.verdict.criteria is None:
            return None
        return self.verdict.total if name == TOTAL else self.verdict.criteria[name].mean


def default_pairs(ours: Sequence[str], human: Sequence[str]) -> list[tuple[str, str]]:
    """PAIRS as far as both sides have them, then criteria of the same name."""
    known = [pair for pair in PAIRS if pair[0] in ours and pair[1] in human]
    return known + [(name, name) for name in ours if name in human and (name, name) not in known]


def calibrate(
    rated: Sequence[Rated],
    verdicts: Sequence[Verdict | None],
    pairs: Sequence[tuple[str, str]],
    teacher: TeacherIdentity,
    *,
    ratings: str,
    selection: str,
) -> Calibration:
    """Agreement with people on N stories; `pairs` says which criterion of ours goes with which of theirs.

    No pairs: those of `default_pairs`.

    Raises:
        CalibrationError: a criterion is unknown, or fewer than MIN_STORIES stories have both numbers.
    """
    groups = groups_by_prompt([row.prompt for row in rated])
    ours = next((verdict.criteria for verdict in verdicts if verdict and verdict.criteria), {})
    if not ours:
        raise CalibrationError(f"none of {len(rated)} stories has an ok verdict{_why_missing(verdicts)}")
    chosen = checked_pairs(list(ours), criteria_of(rated), pairs)
    judged = [_Judged(*row) for row in zip(rated, verdicts, groups, strict=True)]
    humans = list(dict.fromkeys(human for _, human in chosen))
    counts = Counter(None if verdict is None else verdict.status for verdict in verdicts)
    return Calibration(
        ratings=ratings,
        selection=selection,
        teacher=teacher,
        stories=len(rated),
        prompts=len({row.prompt for row in rated}),
        ok=counts[VerdictStatus.OK],
        failed=counts[VerdictStatus.FAILED],
        refused=counts[VerdictStatus.REFUSED],
        absent=counts[None],
        reasons=reasons(verdicts),
        agreement=tuple(row for human in humans for row in _rows(human, judged, chosen)),
        ceilings=tuple(_ceiling(human, judged) for human in humans),
    )


def checked_pairs(ours: Sequence[str], human: Sequence[str], pairs: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """`pairs`, or those of `default_pairs` where there are none; `ours` and `human` are the criteria of both sides.

    Raises:
        CalibrationError: a pair names an unknown criterion, or nothing goes together.
    """
    for own, theirs in pairs:
        if own not in (*ours, TOTAL):
            raise CalibrationError(f"pair {own}={theirs}: the teacher judges {', '.join(ours)} and total, not {own!r}")
        if theirs not in human:
            raise CalibrationError(f"pair {own}={theirs}: people rated {', '.join(human)}, not {theirs!r}")
    chosen = list(pairs) or default_pairs(ours, human)
    if not chosen:
        raise CalibrationError(
            f"the teacher judges {', '.join(ours)} and people rated {', '.join(human)}: none goes with "
            "another by name; say which with --pair ours=theirs"
        )
    return chosen


def _rows(human: str, judged: Sequence[_Judged], pairs: Sequence[tuple[str, str]]) -> Iterator[HumanAgreement]:
    for own, theirs in pairs:
        if theirs == human:
            yield _agreement(human, "teacher", own, judged, [j.own(own) for j in judged])
    for judge in judges_of([j.rated for j in judged]):
        if human in criteria_of([j.rated for j in judged], judge):
            yield _agreement(human, "llm", judge, judged, [j.rated.mean(judge, human) for j in judged])


def _agreement(
    human: str,
    kind: Literal["teacher", "llm"],
    judge: str,
    judged: Sequence[_Judged],
    numbers: Sequence[float | None],
) -> HumanAgreement:
    rows = [
        (number, mean, math.log(max(1, j.rated.words)), j.group)
        for j, number in zip(judged, numbers, strict=True)
        if number is not None and (mean := j.rated.mean(HUMAN, human)) is not None
    ]
    if len(rows) < MIN_STORIES:
        raise CalibrationError(
            f"{len(rows)} stories have a number for {judge} and human ratings of {human}; "
            f"at least {MIN_STORIES} are needed{_why_missing([j.verdict for j in judged]) if kind == 'teacher' else ''}"
        )
    columns = [*zip(*(row[:3] for row in rows), strict=True)]

    def statistics(weights_BN: FloatArray) -> list[FloatArray]:
        matrix_BKK = rank_correlations(columns, weights_BN)
        own, own_words, words = matrix_BKK[:, 0, 1], matrix_BKK[:, 0, 2], matrix_BKK[:, 1, 2]
        return [own, words, own - words, partials(own, own_words, words)]

    spearman, words, beyond, given = estimates(statistics, [row[3] for row in rows])
    return HumanAgreement(
        human=human,
        kind=kind,
        judge=judge,
        n=len(rows),
        spearman=spearman,
        words=words,
        beyond_words=beyond,
        given_words=given,
    )


def _why_missing(verdicts: Sequence[Verdict | None]) -> str:
    return "".join(f"; {reason}" for reason in reasons(verdicts))


def _ceiling(human: str, judged: Sequence[_Judged]) -> Ceiling:
    """Of the first R ratings of each story, R the fewest that any has; stories with one rater alone are left out."""
    rows = [(given, j.group) for j in judged if len(given := j.rated.human.get(human, ())) > 1]
    nothing = Estimate(value=None, low=None, high=None)
    if len(rows) < MIN_STORIES:
        return Ceiling(human=human, n=len(rows), raters=1.0, halves=nothing, reliability=None, ceiling=None)
    fewest = min(len(given) for given, _ in rows)
    ratings_NR = np.asarray([given[:fewest] for given, _ in rows], dtype=np.float64)
    splits = half_splits(fewest)
    groups = [group for _, group in rows]
    (halves,) = estimates(lambda weights_BN: [split_halves(ratings_NR, splits, weights_BN)], groups)
    raters = harmonic_mean([len(given) for given, _ in rows])
    reliability = math.nan if halves.value is None else stepped_up(halves.value, raters / (fewest // 2))
    known = not math.isnan(reliability)
    return Ceiling(
        human=human,
        n=len(rows),
        raters=raters,
        halves=halves,
        reliability=reliability if known else None,
        ceiling=math.sqrt(reliability) if known else None,
    )
