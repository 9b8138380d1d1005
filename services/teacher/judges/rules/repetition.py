"""What a text says again: distinct n-grams (Li et al. 2016), repeated sentences, repeated sentence frames."""

from collections.abc import Sequence
from typing import NamedTuple

from services.teacher.judges.rules.lexicon import Word

MEMORY = 150  # words back that count as said before: keeps the measure free of length
WINDOW = 40  # words of the moving-average type-token ratio (Covington & McFall 2010)
FRAMES_BACK = 4  # sentences back whose frame counts as repeated


class Repetition(NamedTuple):
    """Shares in 0..1."""

    repeated_bigrams: float  # of a sentence's word pairs, said within the last MEMORY words
    repeated_trigrams: float
    stale_sentences: float  # words in sentences most of whose pairs were said before
    repeated_frames: float  # sentences with the word-class frame, or the same first two words, of one just before
    moving_ttr: float
    doubled: int  # the same word twice in a row


def repetition(sentences: Sequence[Sequence[Word]]) -> Repetition:
    """Measure a tagged story."""
    seen2: dict[tuple[str, str], int] = {}
    seen3: dict[tuple[str, str, str], int] = {}
    at = pairs = repeated2 = triples = repeated3 = words = stale = doubled = 0
    for sentence in sentences:
        lowers = [w.token.lower for w in sentence if w.token.kind in ("word", "number")]
        mine = said = 0
        for i, word in enumerate(lowers):
            at += 1
            if i:
                pair = (lowers[i - 1], word)
                mine += 1
                said += at - seen2.get(pair, -MEMORY - 1) <= MEMORY
                seen2[pair] = at
                doubled += word == lowers[i - 1] and word not in _MAY_DOUBLE
            if i > 1:
                triple = (lowers[i - 2], lowers[i - 1], word)
                triples += 1
                repeated3 += at - seen3.get(triple, -MEMORY - 1) <= MEMORY
                seen3[triple] = at
        pairs, repeated2, words = pairs + mine, repeated2 + said, words + len(lowers)
        if mine >= 2:
            stale += len(lowers) * (said > 0.5 * mine)
    return Repetition(
        repeated2 / max(1, pairs),
        repeated3 / max(1, triples),
        stale / max(1, words),
        _repeated_frames(sentences),
        moving_ttr([w.token.lower for s in sentences for w in s if w.token.kind == "word"]),
        doubled,
    )


_MAY_DOUBLE = frozenset(
    {"very", "had", "that", "no", "so", "far", "long", "on", "many", "ha", "oh", "bye", "yes", "now"}
)


def _repeated_frames(sentences: Sequence[Sequence[Word]]) -> float:
    if len(sentences) < 2:
        return 0.0
    recent_frames: list[tuple[str, ...]] = []
    recent_starts: list[tuple[str, ...]] = []
    repeated = 0.0
    for sentence in sentences:
        words = [w for w in sentence if w.token.kind == "word"]
        frame = tuple(w.label for w in words)
        start = tuple(w.token.lower for w in words[:2])
        if len(frame) >= 3 and frame in recent_frames[-FRAMES_BACK:]:
            repeated += 1.0
        elif recent_starts[-2:].count(start):
            repeated += 0.5
        recent_frames.append(frame)
        recent_starts.append(start)
    return repeated / (len(sentences) - 1)


def moving_ttr(words: Sequence[str], window: int = WINDOW) -> float:
    """Mean share of different words in every run of `window` words; over the whole text where it is shorter."""
    if not words:
        return 0.0
    if len(words) <= window:
        # The ratio of a shorter text is higher by nature: extend it as if it went on at the rate of Herdan's law.
        types = len(set(words))
        return types / len(words) * float((len(words) / window) ** 0.2)
    counts: dict[str, int] = {}
    for word in words[:window]:
        counts[word] = counts.get(word, 0) + 1
    total, runs = len(counts), 1
    for old, new in zip(words, words[window:], strict=False):
        counts[new] = counts.get(new, 0) + 1
        if counts[old] == 1:
            del counts[old]
        else:
            counts[old] -= 1
        total, runs = total + len(counts), runs + 1
    return total / runs / window
