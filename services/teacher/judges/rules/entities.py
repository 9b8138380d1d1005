"""Who and what the story is about, sentence by sentence.

After the entity grid (Barzilay & Lapata 2008) and centering (Grosz, Joshi & Weinstein 1995): a coherent text keeps some
entities in focus from one sentence to the next, refers to them by pronouns that have an antecedent, and brings new ones
in at a pace. Antecedents are the latest mention of fitting gender and number (Lappin & Leass 1994, much simplified).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from services.teacher.judges.rules.classes import group, groups
from services.teacher.judges.rules.lexicon import Word

LINK = (0.0, 1.0, 0.55, 0.3)  # how strongly a mention ties its sentence to one 1, 2, 3 sentences before
REACH = len(LINK) - 1
BRIDGE = 0.7  # what is left of a tie that goes by another noun
SENTENCE_WORDS = 14  # a stretch: a sentence, or this many words of longer ones
MEMORY = 12  # latest mentions of beings that a pronoun may choose from
_INDEFINITE = frozenset({"a", "an", "another", "some"})
_DEFINITE = frozenset({"the", "this", "that", "these", "those", "his", "her", "their", "its"})
_POINTING = frozenset({"the", "this", "that"})
_POSSESSIVE = frozenset({"his", "her", "their"})
_FIRST_PERSON = frozenset({"i", "we", "my", "me", "our", "us"})
_OPPOSITE = {"m": "f", "f": "m"}


class Continuity(NamedTuple):
    """Shares are 0..1; `a stretch` means a sentence, or SENTENCE_WORDS words where sentences are longer."""

    linked: float  # mean tie of a sentence to those before: 1 for a mention shared with the sentence just before
    chained: float  # share of mentions that belong to something mentioned in more than one sentence
    resolved: float  # third-person pronouns with a fitting antecedent, smoothed towards 0.75
    clashes: float  # pronouns a stretch that can only point to a being of the other gender
    new_per_sentence: float  # entities met for the first time after the second sentence, a stretch
    lone_beings: float  # beings mentioned in one sentence only, a stretch
    misordered: float  # "a fox" after "the fox" had been met, a pronoun before its noun, a stretch
    named: float  # like `linked`, but only by a noun or name said again, another noun for it, or the narrator's I
    unprepared: float  # share of new things, after the first sentence, that come as "the ..." and hang on nothing
    beings: int  # different beings: names, and nouns for he or she


@dataclass(slots=True)
class _Entity:
    gender: str  # m, f, n (a thing), p (several), ? (a being or a name whose gender is not known)
    last: int  # sentence of the latest mention
    mentions: int = 1
    sentences: int = 1
    definite: bool = True
    anchored: bool = False
    votes_m: int = 0
    votes_f: int = 0

    def mention(self, number: int) -> int:
        """Count a mention in sentence `number`; how many sentences back the one before was."""
        back = number - self.last
        self.mentions += 1
        self.sentences += back > 0
        self.last = number
        return back

    def sex(self) -> str:
        """m, f, n, p, or ? where nothing points either way."""
        if self.gender != "?" or self.votes_m == self.votes_f:
            return self.gender
        return "m" if self.votes_m > self.votes_f else "f"


def continuity(sentences: Sequence[Sequence[Word]]) -> Continuity:
    """Measure a tagged story."""
    tracker = _Tracker()
    links = [tracker.read(number, sentence) for number, sentence in enumerate(sentences)]
    words = sum(w.token.kind == "word" for s in sentences for w in s)
    return tracker.continuity(len(sentences), max(len(sentences), words / SENTENCE_WORDS), sum(links[1:]))


class _Tracker:
    def __init__(self) -> None:
        self.entities: dict[str, _Entity] = {}
        self.recent: list[tuple[str, int]] = []  # beings and groups by latest mention, newest last
        self.pronouns = self.clashes = self.late_new = 0
        self.resolved = self.misordered = self.named = 0.0
        self.new = self.unprepared = 0
        self.last_first_person = self.last_thing = -9
        self.owner_known = False  # whether the latest third-person pronoun had an antecedent

    def read(self, number: int, sentence: Sequence[Word]) -> float:
        """Take one sentence in; how strongly it is tied to those before, 0..1."""
        link = named = 0.0
        determiner = ""
        genders = _genders()
        for w in sentence:
            lower, label = w.token.lower, w.label
            if label in _NOUNS:
                named = max(named, self._noun(number, w, determiner))
                determiner = ""
            elif gender := genders.get(lower):
                link = max(link, self._pronoun(number, gender, quoted=w.token.quoted))
                determiner = lower
            elif lower in _FIRST_PERSON:
                tie = 0.8 * _tie(number - self.last_first_person)
                link = max(link, tie)
                named = named if w.token.quoted else max(named, tie)
                self.last_first_person = number
            elif lower in _INDEFINITE or lower in _DEFINITE:
                determiner = lower
            elif label not in _INSIDE_PHRASE:
                determiner = ""
        self.named += named
        return max(link, named)

    def _noun(self, number: int, w: Word, determiner: str) -> float:
        key = w.token.lower if w.label != "NNS" else _singular(w.token.lower)
        entity = self.entities.get(key)
        if entity is None:
            gender = _noun_gender(w, key)
            self.entities[key] = _Entity(gender, number, definite=determiner not in _INDEFINITE)
            self._remember(key, number, gender)
            bridge = self._bridge(number, key) if gender != "n" else 0.0
            # `his mother` hangs on him, and a bridge on whom it leads to: neither comes out of nowhere.
            self.entities[key].anchored = bridge > 0.0 or (determiner in _POSSESSIVE and self.owner_known)
            self.late_new += number > 1 and not self.entities[key].anchored
            if number > 0 and w.label == "NN":
                self.new += 1
                self.unprepared += determiner in _POINTING and not self.entities[key].anchored
            return bridge
        if determiner in _INDEFINITE and entity.definite and w.label == "NN":
            self.misordered += 1.0
        entity.definite = entity.definite or determiner not in _INDEFINITE
        self._remember(key, number, entity.gender)
        return _tie(entity.mention(number))

    def _bridge(self, number: int, key: str) -> float:
        """The tie of a new noun to a recent being that it may be another noun for: the girl for the daughter."""
        kin = _bridges().get(key)
        if not kin:
            return 0.0
        for other, at in reversed(self.recent):
            if other in kin and number > at:
                self.entities[other].sentences += 1
                return BRIDGE * _tie(min(number - at, REACH))
        return 0.0

    def _remember(self, key: str, number: int, gender: str) -> None:
        if gender == "n":
            self.last_thing = number
        else:
            self.recent.append((key, number))
            del self.recent[:-MEMORY]

    def _pronoun(self, number: int, gender: str, *, quoted: bool) -> float:
        if gender == "n":
            return 0.4 * _tie(number - self.last_thing) if number > self.last_thing else 0.0
        self.pronouns += 1
        near = [k for k, at in reversed(self.recent) if number - at <= REACH]
        key = self._antecedent(near, gender)
        self.owner_known = key is not None
        if key is not None:
            entity = self.entities[key]
            self._remember(key, number, entity.gender)
            self.resolved += 1.0
            entity.votes_m += gender == "m"
            entity.votes_f += gender == "f"
            return 0.9 * _tie(entity.mention(number))
        if quoted or (gender == "p" and self.entities):
            self.resolved += 0.5
            return 0.3
        self.clashes += any(self.entities[k].sex() == _OPPOSITE.get(gender) for k in near)
        self.misordered += 0.5 if number == 0 else 0.0
        # The reader takes the stranger in: what follows may point to him.
        key = f"<{gender}>"
        if key in self.entities:
            self.entities[key].mention(number)
        else:
            self.entities[key] = _Entity(gender, number)
        self._remember(key, number, gender)
        return 0.0

    def _antecedent(self, near: Sequence[str], gender: str) -> str | None:
        """The latest being known to fit, else the latest that may fit."""
        several = gender == "p" and len(set(near)) > 1
        for key in near:
            if self.entities[key].sex() == gender or several:
                return key
        return next((key for key in near if self.entities[key].sex() == "?"), None)

    def continuity(self, sentences: int, stretches: float, linked: float) -> Continuity:
        entities = self.entities.values()
        mentions = sum(e.mentions for e in entities)
        beings = [e for e in entities if e.gender in "mf?"]
        return Continuity(
            linked=linked / max(1, sentences - 1),
            chained=sum(e.mentions for e in entities if e.sentences > 1 or e.anchored) / max(1, mentions),
            resolved=(self.resolved + 1.5) / (self.pronouns + 2.0),
            clashes=self.clashes / max(1.0, stretches),
            new_per_sentence=self.late_new / max(1.0, stretches - 2.0),
            lone_beings=sum(e.sentences == 1 and not e.anchored for e in beings) / max(1.0, stretches),
            misordered=self.misordered / max(1.0, stretches),
            named=self.named / max(1, sentences - 1),
            unprepared=self.unprepared / (self.new + 2.0),
            beings=len(beings),
        )


_NOUNS = frozenset({"NN", "NNS", "NAME"})
_INSIDE_PHRASE = frozenset({"JJ", "RB", "VBN", "VBG"})


def _tie(back: int) -> float:
    return LINK[back] if 0 < back <= REACH else 0.0


@cache
def _bridges() -> dict[str, frozenset[str]]:
    """Noun -> nouns under which the same being may have been met."""
    return {noun: frozenset(earlier) for noun, earlier in groups()["bridges"].items()}


@cache
def _genders() -> dict[str, str]:
    names = {"m": "masculine_pronouns", "f": "feminine_pronouns", "p": "plural_pronouns", "n": "neuter_pronouns"}
    return {word: gender for gender, name in names.items() for word in group(name)}


def _noun_gender(w: Word, key: str) -> str:
    if w.token.lower in group("plural_beings") or w.label == "NNS":
        return "p"
    if key in group("masculine_nouns"):
        return "m"
    if key in group("feminine_nouns"):
        return "f"
    return "?" if w.label == "NAME" or key in group("being_nouns") else "n"


def _singular(word: str) -> str:
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("ses", "xes", "ches", "shes")):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith("ss") else word


_IRREGULAR = {"children": "child", "men": "man", "women": "woman", "mice": "mouse", "wolves": "wolf", "wives": "wife"}
