"""Measures of diversity in a set of stories. Pure."""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise


def word_count(text: str) -> int:
    """Whitespace-separated words."""
    return len(text.split())


def _bigrams(text: str) -> list[tuple[str, str]]:
    return list(pairwise(text.lower().split()))


def distinct_2(text: str) -> float | None:
    """Distinct word bigrams over all word bigrams within one story, 0..1 (Li et al. 2016); none below two words."""
    bigrams = _bigrams(text)
    return len(set(bigrams)) / len(bigrams) if bigrams else None


def own_bigrams(texts: Sequence[str]) -> list[float]:
    """For each story, the share of its distinct word bigrams that no other story has, 0..1.

    Near 0 where all stories are one story told again. Stories below two words are left out.
    """
    sets = [set(_bigrams(text)) for text in texts]
    owners = Counter(bigram for bigrams in sets for bigram in bigrams)
    return [sum(owners[b] == 1 for b in bigrams) / len(bigrams) for bigrams in sets if bigrams]
