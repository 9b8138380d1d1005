"""Measures of diversity and of cast in a set of stories, over whitespace-separated words. Pure."""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

SMOOTHING = 0.1
_ORDERS = (1, 2, 3, 4)
_ENDS = ".!?"
_OUTSIDE = "\"'“”‘’(),.;:!?*_-–—"
_DEFINITE = {"the", "this", "that", "his", "her", "its", "their", "my", "your", "our"}
_NO_THING = {
    *("and", "or", "but", "who", "that", "which", "where", "when", "with", "without", "of", "in", "on", "at", "to"),
    *("from", "for", "by", "as", "was", "is", "were", "are", "had", "has", "lot", "few", "very", "so", "a"),
    *("an", "the", "one", "day", "time", "while", "bit", "named", "called"),
}
_PHRASE = 3


def word_count(text: str) -> int:
    """Whitespace-separated words."""
    return len(text.split())


def _ngrams(words: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return list(zip(*(words[i:] for i in range(n)), strict=False))


def distinct(text: str, n: int) -> float | None:
    """Distinct n-grams over all n-grams within one story, 0..1 (Li et al. 2016); none below `n` words."""
    ngrams = _ngrams(text.lower().split(), n)
    return len(set(ngrams)) / len(ngrams) if ngrams else None


def own_bigrams(texts: Sequence[str]) -> list[float]:
    """For each story, the share of its distinct word bigrams that no other story has, 0..1.

    Near 0 where all stories are one story told again. Stories below two words are left out.
    """
    sets = [set(_ngrams(text.lower().split(), 2)) for text in texts]
    owners = Counter(bigram for bigrams in sets for bigram in bigrams)
    return [sum(owners[b] == 1 for b in bigrams) / len(bigrams) for bigrams in sets if bigrams]


def self_bleu(texts: Sequence[str]) -> list[float]:
    """BLEU-4 of each story against all others, 0..1; high where stories repeat each other (Zhu et al. 2018).

    Equal weights, the closest length as the reference's, and counts of 0 taken as 0.1 (method 1 of Chen & Cherry 2014),
    as in Texygen and NLTK; lower-cased. Empty without two stories. An empty story has 0.
    """
    if len(texts) < 2:
        return []
    stories = [text.lower().split() for text in texts]
    counts = [[Counter(_ngrams(words, n)) for n in _ORDERS] for words in stories]
    limits = [_Limits([story[k] for story in counts]) for k in range(len(_ORDERS))]
    lengths = Counter(len(words) for words in stories)
    return [_bleu(len(words), i, counts[i], limits, lengths) for i, words in enumerate(stories)]


class _Limits:
    """The highest count of each n-gram in any one story, and in any story but one."""

    def __init__(self, counts: Sequence[Counter[tuple[str, ...]]]) -> None:
        self._first: dict[tuple[str, ...], tuple[int, int]] = {}  # highest count, whose it is
        self._second: dict[tuple[str, ...], int] = {}
        for owner, story in enumerate(counts):
            for ngram, count in story.items():
                highest, _ = self._first.get(ngram, (0, -1))
                if count > highest:
                    self._first[ngram], self._second[ngram] = (count, owner), highest
                else:
                    self._second[ngram] = max(self._second[ngram], count)

    def without(self, ngram: tuple[str, ...], story: int) -> int:
        highest, whose = self._first[ngram]
        return self._second[ngram] if whose == story else highest


def _bleu(
    length: int,
    story: int,
    counts: Sequence[Counter[tuple[str, ...]]],
    limits: Sequence[_Limits],
    lengths: Counter[int],
) -> float:
    matches = [
        sum(min(count, limit.without(ngram, story)) for ngram, count in of_order.items())
        for of_order, limit in zip(counts, limits, strict=True)
    ]
    if matches[0] == 0:
        return 0.0
    totals = [max(1, length - n + 1) for n in _ORDERS]
    logs = [math.log((match or SMOOTHING) / total) for match, total in zip(matches, totals, strict=True)]
    others = (other for other, stories in lengths.items() if stories - (other == length) > 0)
    closest = min(others, key=lambda other: (abs(other - length), other))
    brevity = min(0.0, 1 - closest / length)
    return math.exp(brevity + sum(logs) / len(_ORDERS))


@dataclass(frozen=True, slots=True)
class Cast:
    """Entities that a story introduces, and how many of them it comes back to."""

    introduced: int
    kept: int


def cast(text: str) -> Cast:
    """A rough count of the entities in a story, without a tagger or coreference.

    Two kinds are introduced: names, which are words that stand capitalised elsewhere than where a sentence or a
    quotation begins, and never in lower case; and things, which are "a" or "an" with up to three words behind it, until
    a word such as "who" or a comma. A name is kept where it occurs again; a thing where one of its words occurs later
    within two words behind "the", "his", "this" and the like.

    So "a little fox ... the little bird" counts the fox as kept, "a fox ... he" does not, a name in two words is two
    names, and a second "a fox" is another thing. Good for comparing checkpoints, not for counting characters.
    """
    tokens = text.split()
    bare = [token.strip(_OUTSIDE) for token in tokens]
    lower = [word.lower() for word in bare]
    names = _names(tokens, bare)
    seen = Counter(word for word in bare if word in names)
    kept = sum(count > 1 for count in seen.values())
    things = [
        (i, phrase) for i in range(len(tokens)) if lower[i] in ("a", "an") and (phrase := _thing(tokens, lower, i))
    ]
    for start, phrase in things:
        later = range(start + 1 + len(phrase), len(lower))
        kept += any(lower[i] in _DEFINITE and phrase.intersection(lower[i + 1 : i + 3]) for i in later)
    return Cast(len(names) + len(things), kept)


def _names(tokens: Sequence[str], bare: Sequence[str]) -> set[str]:
    small = {word for word in bare if word[:1].islower()}
    names = set()
    for i in range(1, len(tokens)):
        starts = tokens[i - 1].rstrip("\"'”’)")[-1:] in _ENDS or not tokens[i][0].isalpha()
        word = re.sub(r"['’]s$", "", bare[i])
        if word[:1].isupper() and not starts and not re.match(r"I($|['’])", word) and word.lower() not in small:
            names.add(bare[i])
    return names


def _thing(tokens: Sequence[str], lower: Sequence[str], article: int) -> frozenset[str]:
    phrase: list[str] = []
    for i in range(article + 1, min(article + 1 + _PHRASE, len(tokens))):
        if lower[i] in _NO_THING:
            break
        phrase.append(lower[i])
        if tokens[i][-1] in '.,;:!?"”':
            break
    return frozenset(phrase) - {""}
