"""The word list and the class model: which words are known, their class in their place, how well neighbours fit."""

import gzip
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import NamedTuple

from services.teacher.judges.rules.classes import PACKAGE, coarse_classes, decode_table
from services.teacher.judges.rules.text import Sentence, Token

UNKNOWN_ZIPF = 2.5  # log10 occurrences per billion words given to a word the list lacks


class Entry(NamedTuple):
    """A word form: possible classes as (index, log share), and how frequent it is."""

    classes: tuple[tuple[int, float], ...]
    zipf: float


class Word(NamedTuple):
    """A token in its place."""

    token: Token
    label: str  # fine class: a mark, an open class, or the closed-class word itself
    known: bool
    zipf: float
    association: float  # nats by which the class is likelier here than anywhere (see `Model.tag`)


@dataclass(frozen=True, slots=True)
class Model:
    """The tables of data/lexicon.tsv.gz and data/grammar.json.gz, K classes, M coarse ones."""

    entries: dict[str, Entry]
    classes: tuple[str, ...]
    index: dict[str, int]
    coarse: tuple[int, ...]
    pairs: tuple[tuple[float, ...], ...]  # K x K
    triples: tuple[tuple[tuple[float, ...], ...], ...]  # M x M x M

    def tag(self, sentence: Sentence, *, continues: bool = False) -> list[Word]:
        """Give each token its class by Viterbi over log P(class | word) + association with the class before.

        The association of a token is log P(c | c before) / P(c) from the pair table plus what the coarse class two
        places before adds: summed over a text, the syntactic log-odds ratio (SLOR; Pauls & Klein 2012, Lau et al.
        2017), which frees a language model's probability from word frequency and length.

        Args:
            sentence: the tokens.
            continues: the text goes on from a prompt, so that its first word follows a comma rather than a full stop.
        """
        candidates = [self._candidates(token) for token in sentence.tokens]
        path = self._path([c for c, _, _ in candidates], "," if continues else "^")
        before = previous = self.index["," if continues else "^"]
        words: list[Word] = []
        for token, (_, known, zipf), label in zip(sentence.tokens, candidates, path, strict=True):
            fit = (
                self.pairs[previous][label]
                + self.triples[self.coarse[before]][self.coarse[previous]][self.coarse[label]]
            )
            words.append(Word(token, self._settle(words, token, self.classes[label]), known, zipf, fit))
            before, previous = previous, label
        return words

    def _settle(self, before: Sequence[Word], token: Token, label: str) -> str:
        """A participle right after its subject, with no form of have or be in sight, is a past tense: the fox lost."""
        if label != "VBN" or not before or before[-1].label not in _SUBJECTS:
            return label
        if any(w.label in _AUXILIARIES for w in before[-5:]):
            return label
        entry = self.entries.get(token.lower)
        past = self.index["VBD"]
        return "VBD" if entry is None or any(c == past for c, _ in entry.classes) else label

    def _path(self, candidates: Sequence[tuple[tuple[int, float], ...]], start: str) -> list[int]:
        pairs = self.pairs
        beam: list[tuple[float, int]] = [(0.0, self.index[start])]
        backs: list[tuple[tuple[int, ...], list[tuple[float, int]]]] = []
        for options in candidates:
            if len(options) == 1 and len(beam) == 1:
                new = [(0.0, options[0][0])]
                pointers: tuple[int, ...] = (0,)
            else:
                new, back = [], []
                for label, log_share in options:
                    scores = [score + pairs[previous][label] for score, previous in beam]
                    best = max(range(len(scores)), key=scores.__getitem__)
                    new.append((scores[best] + log_share, label))
                    back.append(best)
                pointers = tuple(back)
            backs.append((pointers, new))
            beam = new
        if not backs:
            return []
        at = max(range(len(beam)), key=lambda i: beam[i][0])
        path = []
        for pointers, states in reversed(backs):
            path.append(states[at][1])
            at = pointers[at]
        return path[::-1]

    def _candidates(self, token: Token) -> tuple[tuple[tuple[int, float], ...], bool, float]:
        if token.kind == "word":
            return self._word(token)
        label = {"end": ".", "number": "NUM", "pause": "," if token.surface == "," else ";"}[token.kind]
        return ((self.index[label], 0.0),), True, 9.0

    def _word(self, token: Token) -> tuple[tuple[tuple[int, float], ...], bool, float]:
        entry = self.entries.get(token.lower)
        capital = token.surface[0].isupper()
        if entry is not None:
            if capital and not token.first and self.classes[entry.classes[0][0]] in _OPEN_NAMES:
                return (*entry.classes, (self.index["NAME"], 0.0)), True, entry.zipf
            return entry.classes, True, entry.zipf
        if capital:
            return ((self.index["NAME"], 0.0),), True, UNKNOWN_ZIPF + 1.5
        known = any(stem in self.entries for stem in _stems(token.lower))
        labels = next((v for suffix, v in _SUFFIX_CLASSES if token.lower.endswith(suffix)), ("NN", "JJ", "VB"))
        share = math.log(1.0 / len(labels))
        return tuple((self.index[label], share) for label in labels), known, UNKNOWN_ZIPF


_SUBJECTS = frozenset(
    {"NN", "NNS", "NAME", "RB", "i", "you", "he", "she", "it", "we", "they", "who", "that", "then", "and"}
)
_AUXILIARIES = frozenset(
    {"be", "am", "is", "are", "was", "were", "been", "being", "have", "has", "had", "having", "'s", "'ve"}
)
_OPEN_NAMES = frozenset({"NN", "NNS", "JJ", "VB", "VBG", "VBN", "VBD", "VBZ", "RB"})
_SUFFIX_CLASSES = (
    ("ing", ("VBG", "NN")),
    ("ed", ("VBD", "VBN")),
    ("ly", ("RB",)),
    ("ss", ("NN",)),
    ("s", ("NNS", "VBZ")),
    ("est", ("JJ",)),
    ("ful", ("JJ",)),
    ("ous", ("JJ",)),
    ("less", ("JJ",)),
)
_ENDINGS = ("s", "es", "ed", "d", "ing", "ly", "er", "r", "est", "ness", "less", "ful", "y", "ish", "like")


def _stems(word: str) -> list[str]:
    """Forms from which `word` may be derived, and the parts of a compound joined by hyphens (all must be known)."""
    if "-" in word:
        parts = word.split("-")
        return [max(parts, key=len)] if all(parts) else []
    stems = []
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            stem = word[: -len(ending)]
            stems += [stem, stem + "e"]
            if stem[-1] == stem[-2]:
                stems.append(stem[:-1])
            if stem[-1] == "i":
                stems.append(stem[:-1] + "y")
    if word.startswith("un") and len(word) > 5:
        stems.append(word[2:])
    return stems


@cache
def model() -> Model:
    """Load the shipped tables once."""
    folder = resources.files(PACKAGE).joinpath("data")
    grammar = json.loads(gzip.decompress(folder.joinpath("grammar.json.gz").read_bytes()))
    classes: tuple[str, ...] = tuple(grammar["classes"])
    index = {c: i for i, c in enumerate(classes)}
    entries: dict[str, Entry] = {}
    for line in gzip.decompress(folder.joinpath("lexicon.tsv.gz").read_bytes()).decode().splitlines():
        word, shares, zipf = line.split("\t")
        parsed = [share.rpartition(":") if ":" in share[1:] else (share, "", "100") for share in shares.split(" ")]
        entries[word] = Entry(tuple((index[c], math.log(int(p) / 100)) for c, _, p in parsed), int(zipf) / 10)
    coarse = tuple(coarse_classes()[c] for c in classes)
    k, m = len(classes), max(coarse_classes().values()) + 1
    pairs, triples = decode_table(grammar["pairs"]), decode_table(grammar["triples"])
    return Model(
        entries=entries,
        classes=classes,
        index=index,
        coarse=coarse,
        pairs=tuple(pairs[i * k : (i + 1) * k] for i in range(k)),
        triples=tuple(tuple(triples[(i * m + j) * m : (i * m + j + 1) * m] for j in range(m)) for i in range(m)),
    )
