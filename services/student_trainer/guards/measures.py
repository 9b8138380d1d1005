"""What is watched of a batch of stories. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from services.student_trainer.rewards import repeated_share


def repetition(texts: Sequence[str]) -> float:
    """Share of word trigrams that occurred before in their story, mean over stories; see `repeated_share`."""
    return fmean(repeated_share(text) for text in texts)


def distinct_share(texts: Sequence[str], n: int = 2) -> float:
    """Distinct word n-grams over all n-grams of the batch (distinct-n, arXiv 1510.03055), letter case aside.

    1 where the stories have no n-gram at all. It falls with the number of words: compare batches of one size.
    """
    ngrams = [
        tuple(words[i : i + n])
        for words in (text.casefold().split() for text in texts)
        for i in range(len(words) - n + 1)
    ]
    return len(set(ngrams)) / len(ngrams) if ngrams else 1.0


@dataclass(frozen=True)
class Line:
    """A least-squares line: slope, and correlation (Pearson)."""

    slope: float | None  # none where no x differs from another
    correlation: float | None  # none where no x or no y does


def line(xs: Sequence[float], ys: Sequence[float]) -> Line:
    """The line of `ys` on `xs`."""
    if not xs:
        return Line(None, None)
    x_mean, y_mean = fmean(xs), fmean(ys)
    xx, yy = sum((x - x_mean) ** 2 for x in xs), sum((y - y_mean) ** 2 for y in ys)
    xy = sum((x - x_mean) * (y - y_mean) for x, y in zip(xs, ys, strict=True))
    spread = math.sqrt(xx) * math.sqrt(yy)
    return Line(xy / xx if xx > 0.0 else None, min(1.0, max(-1.0, xy / spread)) if spread > 0.0 else None)
