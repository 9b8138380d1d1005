"""What is watched of a batch of stories. Pure."""

from collections.abc import Sequence
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


def slope(xs: Sequence[float], ys: Sequence[float]) -> float | None:
    """Least-squares slope of `ys` on `xs`; none where all `xs` are equal."""
    if not xs:
        return None
    x_mean, y_mean = fmean(xs), fmean(ys)
    variation = sum((x - x_mean) ** 2 for x in xs)
    if variation == 0.0:
        return None
    return sum((x - x_mean) * (y - y_mean) for x, y in zip(xs, ys, strict=True)) / variation
