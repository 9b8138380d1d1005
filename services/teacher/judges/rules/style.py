"""Creativity's ingredients: a rich but real vocabulary, images, talk, few stock phrases."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from services.teacher.judges.rules.classes import group
from services.teacher.judges.rules.cues import find
from services.teacher.judges.rules.lexicon import Word

CONTENT = frozenset({"NN", "NNS", "VB", "VBD", "VBG", "VBN", "VBZ", "JJ", "RB"})
COMMON_ZIPF, RARE_ZIPF = 5.6, 4.0  # log10 per billion words: "little", "lantern"
SPEECH = 3  # words from which a quotation is speech rather than a cry


class Style(NamedTuple):
    """Rates are a hundred words; shares are 0..1."""

    adjectives: float  # adjectives before a noun or another adjective, a noun
    names: float  # different names a hundred words
    rarity: float  # mean rarity of the different content words that stand in fluent places: 0 common .. 1 rare
    content_types: float  # different content words, a word, within the first 100 words of each stretch
    vivid: float  # different vivid words a hundred words
    similes: float  # similes a hundred words, at most one a sentence
    dialogue: float  # share of words in quotations, counted only where somebody is said to speak
    unattributed: float  # share of words in quotations where nobody is said to speak
    cliches: float  # stock phrases a hundred words


def style(sentences: Sequence[Sequence[Word]]) -> Style:
    """Measure a tagged story."""
    words = [w for s in sentences for w in s if w.token.kind == "word"]
    lowers = [w.token.lower for w in words]
    # Types grow ever more slowly with length: rates are taken over the square-root-like length of Guiraud (1954).
    length = max(20.0, len(words)) if len(words) < 100 else 10.0 * len(words) ** 0.5
    rare: dict[str, float] = {}
    for sentence in sentences:
        for i, w in enumerate(sentence):
            if w.label in CONTENT and w.known and w.token.lower not in rare and _fits(sentence, i):
                rare[w.token.lower] = max(0.0, min(1.0, (COMMON_ZIPF - w.zipf) / (COMMON_ZIPF - RARE_ZIPF)))
    vivid = len(set(lowers) & group("vivid") & rare.keys())
    similes = sum(any(True for _ in find([w.token.lower for w in s], "simile_frames")) for s in sentences)
    spoken, unattributed = _dialogue(sentences)
    nouns = sum(w.label in ("NN", "NNS") for w in words)
    names = len({w.token.lower for w in words if w.label == "NAME"})
    return Style(
        adjectives=_attributes(sentences) / max(5, nouns),
        names=100.0 * names / max(50.0, length),
        rarity=sum(rare.values()) / max(8, len(rare)),
        content_types=len(rare) / length,
        vivid=100.0 * vivid / length,
        similes=100.0 * similes / max(50, len(words)),
        dialogue=spoken / max(1, len(words)),
        unattributed=unattributed / max(1, len(words)),
        cliches=100.0 * sum(1 for _ in find(lowers, "cliches")) / max(30, len(words)),
    )


def _fits(sentence: Sequence[Word], i: int) -> bool:
    """The word's class is at home where it stands, so that a list of rare words earns nothing."""
    after = sentence[i + 1].association if i + 1 < len(sentence) else 0.0
    return sentence[i].association + after > -0.3


def _attributes(sentences: Sequence[Sequence[Word]]) -> int:
    return sum(a.label == "JJ" and b.label in ("NN", "NNS", "JJ", "NAME") for s in sentences for a, b in pairwise(s))


def _dialogue(sentences: Sequence[Sequence[Word]]) -> tuple[int, int]:
    """Quoted words where somebody is said to speak, in that sentence or one of the two before; and the other ones."""
    spoken, unattributed, reach = 0, 0, 0
    for sentence in sentences:
        quoted = sum(w.token.quoted and w.token.kind == "word" for w in sentence)
        if any(not w.token.quoted and w.token.lower in group("speech_verbs") for w in sentence):
            reach = 3
        if reach > 0:
            spoken += quoted if quoted >= SPEECH else 0
        else:
            unattributed += quoted
        reach -= 1
    return spoken, unattributed
