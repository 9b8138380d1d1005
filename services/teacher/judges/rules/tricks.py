"""What no story needs: words about grading, rows of numbers, pleas to the grader. They are flagged, and cost."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from services.teacher.judges.rules.cues import find
from services.teacher.judges.rules.lexicon import Word

SHOWN_REPETITION = 0.5  # share of words in stale sentences from which a text is flagged as repetitive


class Tricks(NamedTuple):
    """Counts, not rates: more story around a trick does not thin it out."""

    grading: int  # words of rubrics and of pleas to a grader
    number_row: int  # numbers that follow a number


def tricks(sentences: Sequence[Sequence[Word]]) -> Tricks:
    """Count over a tagged story."""
    words = [w.token.lower for s in sentences for w in s if w.token.kind in ("word", "number")]
    grading = sum(1 for _ in find(words, "grading"))
    row = sum(a.token.kind == "number" == b.token.kind for s in sentences for a, b in pairwise(s))
    return Tricks(grading, row)


def flags(found: Tricks, stale: float) -> tuple[str, ...]:
    """Names of what looks like an attempt to please the judge."""
    return tuple(
        name
        for name, holds in (
            ("rubric_echo", found.grading >= 2),
            ("score_tail", found.number_row >= 2),
            ("repetition", stale >= SHOWN_REPETITION),
        )
        if holds
    )
