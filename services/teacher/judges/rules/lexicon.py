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
    countable: bool = False  # a noun that hardly ever stands without a determiner
    known: bool = True


class Word(NamedTuple):
    """A token in its place."""

    token: Token
    label: str  # fine class: a mark, an open class, or the closed-class word itself
    known: bool
    zipf: float
    association: float  # nats by which the class is likelier here than anywhere (see `Model.tag`)
    countable: bool


@dataclass(frozen=True, slots=True)
class Model:
    """The tables of data/lexicon.tsv.gz and data/grammar.json.gz, K classes, M coarse ones."""

    entries: dict[str, Entry]
    classes: tuple[str, ...]
    index: dict[str, int]
    marks: dict[str, Entry]  # what is not a listed word, by token kind: `,`, pause, end, number, name
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
        entries = [self._entry(token) for token in sentence.tokens]
        start = self.index["," if continues else "^"]
        before = previous = start
        words: list[Word] = []
        pairs, triples, coarse, classes = self.pairs, self.triples, self.coarse, self.classes
        for token, entry, label in zip(sentence.tokens, entries, self._path(entries, start), strict=True):
            fit = pairs[previous][label] + triples[coarse[before]][coarse[previous]][coarse[label]]
            name = classes[label]
            if name in ("VBN", "VBZ"):
                name = self._settle(words, token, name)
            words.append(Word(token, name, entry.known, entry.zipf, fit, entry.countable))
            before, previous = previous, label
        return words

    def _settle(self, before: Sequence[Word], token: Token, label: str) -> str:
        """Mend the two mistakes that the bigram model makes most.

        A participle right after its subject, with no form of have or be in sight, is a past tense (the fox lost); what
        looks like a verb in -s right after a determiner or a preposition is a plural (his eyes).
        """
        previous = before[-1].label if before else ""
        if label == "VBZ":
            return "NNS" if previous in _BEFORE_NOUN else label
        if previous not in _SUBJECTS or any(w.label in _AUXILIARIES for w in before[-5:]):
            return label
        entry = self.entries.get(token.lower)
        past = self.index["VBD"]
        return "VBD" if entry is None or any(c == past for c, _ in entry.classes) else label

    def _path(self, entries: Sequence[Entry], start: int) -> list[int]:
        pairs = self.pairs
        beam: list[tuple[float, int]] = [(0.0, start)]
        backs: list[tuple[tuple[int, ...], list[tuple[float, int]]]] = []
        for options, *_ in entries:
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

    def _entry(self, token: Token) -> Entry:
        if token.kind != "word":
            return self.marks["," if token.surface == "," else token.kind]
        entry = self.entries.get(token.lower)
        capital = token.surface[0].isupper()
        if entry is not None:
            if capital and not token.first and self.classes[entry.classes[0][0]] in _OPEN_NAMES:
                return entry._replace(classes=(*entry.classes, (self.index["NAME"], 0.0)), countable=False)
            return entry
        if capital:
            return self.marks["name"]
        known = any(stem in self.entries for stem in _stems(token.lower))
        labels = next((v for suffix, v in _SUFFIX_CLASSES if token.lower.endswith(suffix)), ("NN", "JJ", "VB"))
        share = math.log(1.0 / len(labels))
        return Entry(tuple((self.index[label], share) for label in labels), UNKNOWN_ZIPF, known=known)


_SUBJECTS = frozenset(
    {"NN", "NNS", "NAME", "RB", "i", "you", "he", "she", "it", "we", "they", "who", "that", "then", "and"}
)
_BEFORE_NOUN = frozenset(
    {
        "the",
        "his",
        "their",
        "my",
        "your",
        "its",
        "our",
        "these",
        "those",
        "some",
        "of",
        "in",
        "with",
        "from",
        "JJ",
        "two",
    }
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
        word, shares, zipf, flag = line.split("\t")
        parsed = [share.rpartition(":") if ":" in share[1:] else (share, "", "100") for share in shares.split(" ")]
        entries[word] = Entry(
            tuple((index[c], math.log(int(p) / 100)) for c, _, p in parsed), int(zipf) / 10, flag == "c"
        )
    coarse = tuple(coarse_classes()[c] for c in classes)
    k, m = len(classes), max(coarse_classes().values()) + 1
    pairs, triples = decode_table(grammar["pairs"]), decode_table(grammar["triples"])
    kinds = {",": ",", "pause": ";", "end": ".", "number": "NUM"}
    marks = {kind: Entry(((index[label], 0.0),), 9.0) for kind, label in kinds.items()}
    marks["name"] = Entry(((index["NAME"], 0.0),), UNKNOWN_ZIPF + 1.5)
    return Model(
        marks=marks,
        entries=entries,
        classes=classes,
        index=index,
        coarse=coarse,
        pairs=tuple(pairs[i * k : (i + 1) * k] for i in range(k)),
        triples=tuple(tuple(triples[(i * m + j) * m : (i * m + j + 1) * m] for j in range(m)) for i in range(m)),
    )
