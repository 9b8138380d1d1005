"""Who and what the story is about, sentence by sentence.

After the entity grid (Barzilay & Lapata 2008) and centering (Grosz, Joshi & Weinstein 1995): a coherent text keeps some
entities in focus, refers to them by pronouns that have an antecedent, and brings new ones in at a pace. Antecedents
are the latest mention of fitting gender and number (Lappin & Leass 1994, much simplified).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from services.teacher.judges.rules.classes import group
from services.teacher.judges.rules.lexicon import Word

REACH = 3  # sentences back that a pronoun or a repeated noun may point
_INDEFINITE = frozenset({"a", "an", "another", "some"})
_DEFINITE = frozenset({"the", "this", "that", "these", "those", "his", "her", "their", "its"})


class Continuity(NamedTuple):
    """Shares are 0..1."""

    linked: float  # sentences after the first that mention something of the REACH before
    resolved: float  # third-person pronouns with a fitting antecedent (0.75 where there is none to find)
    clashes: float  # pronouns a sentence whose only candidates have the other gender
    new_per_sentence: float  # entities mentioned for the first time, after the first two sentences, a sentence
    focus: float  # share of mentions that belong to the two most mentioned entities
    misordered: float  # "a fox" after "the fox" had been met, a sentence; pronoun or aftermath openers
    beings: int  # different beings (names, he-she nouns)


@dataclass(slots=True)
class _Entity:
    gender: str  # m, f, n (a thing), p (several), ? (a being or a name of unknown gender)
    last: int
    mentions: int = 1
    met_definite: bool = False


def continuity(sentences: Sequence[Sequence[Word]]) -> Continuity:
    """Measure a tagged story."""
    tracker = _Tracker()
    linked = 0.0
    for number, sentence in enumerate(sentences):
        link = tracker.read(number, sentence)
        linked += link if number else 0.0
    return tracker.continuity(len(sentences), linked)


class _Tracker:
    def __init__(self) -> None:
        self.entities: dict[str, _Entity] = {}
        self.recent: list[tuple[str, int]] = []  # beings and groups by latest mention, newest last
        self.pronouns = self.clashes = self.late_new = self.beings = 0
        self.resolved = self.misordered = 0.0
        self.first_person = -9

    def read(self, number: int, sentence: Sequence[Word]) -> float:
        """Take one sentence in; how strongly it is linked to those before, 0..1."""
        link = 0.0
        determiner = ""
        genders = _genders()
        for w in sentence:
            lower = w.token.lower
            if w.label in ("NN", "NNS", "NAME"):
                link = max(link, self._noun(number, w, determiner))
                determiner = ""
            elif gender := genders.get(lower):
                link = max(link, self._pronoun(number, gender, quoted=w.token.quoted))
                determiner = lower
            elif lower in ("i", "we", "my", "me", "our", "us"):
                link = max(link, 0.6 if number - self.first_person <= 1 else 0.0)
                self.first_person = number
            elif lower in _INDEFINITE or lower in _DEFINITE:
                determiner = lower
            elif w.label not in ("JJ", "RB", "VBN", "VBG"):
                determiner = ""
        return link

    def _noun(self, number: int, w: Word, determiner: str) -> float:
        key = w.token.lower if w.label != "NNS" else _singular(w.token.lower)
        entity = self.entities.get(key)
        if entity is None:
            gender = _noun_gender(w, key)
            self.entities[key] = _Entity(gender, number, met_definite=determiner not in _INDEFINITE)
            self.late_new += number > 1
            self.beings += gender in "mf?"
            self._remember(key, number, gender)
            return 0.0
        if determiner in _INDEFINITE and entity.met_definite and w.label == "NN":
            self.misordered += 1.0
        reach = number - entity.last
        entity.last, entity.mentions = number, entity.mentions + 1
        entity.met_definite = entity.met_definite or determiner not in _INDEFINITE
        self._remember(key, number, entity.gender)
        return 1.0 if 0 < reach <= REACH else 0.0

    def _remember(self, key: str, number: int, gender: str) -> None:
        if gender != "n":
            self.recent.append((key, number))
            del self.recent[:-12]

    def _pronoun(self, number: int, gender: str, *, quoted: bool) -> float:
        if gender == "n":
            return 0.4 if any(number - e.last <= 1 for e in self._latest()) else 0.0
        self.pronouns += 1
        near = [k for k, at in reversed(self.recent) if number - at <= REACH]
        for key in near:
            entity = self.entities[key]
            if entity.gender in (gender, "?") or (gender == "p" and len(set(near)) > 1):
                if entity.gender == "?" and gender in "mf" and len(set(near)) == 1:
                    entity.gender = gender
                reach = number - entity.last
                entity.last, entity.mentions = number, entity.mentions + 1
                self._remember(key, number, entity.gender)
                self.resolved += 1.0
                return 0.9 if reach > 0 else 0.0
        if quoted or (gender == "p" and self.entities):
            self.resolved += 0.5
            return 0.3
        self.clashes += any(self.entities[k].gender in "mf" for k in near)
        if number == 0:
            self.misordered += 0.5
        # The reader takes the stranger in: what follows may point to him.
        key = f"<{gender}>"
        self.entities.setdefault(key, _Entity(gender, number, mentions=0))
        self._remember(key, number, gender)
        return 0.0

    def _latest(self) -> list[_Entity]:
        return list(self.entities.values())[-6:]

    def continuity(self, sentences: int, linked: float) -> Continuity:
        mentions = sorted((e.mentions for e in self.entities.values()), reverse=True)
        return Continuity(
            linked=linked / max(1, sentences - 1),
            resolved=(self.resolved + 1.5) / (self.pronouns + 2.0),
            clashes=self.clashes / max(1, sentences),
            new_per_sentence=self.late_new / max(1, sentences - 2),
            focus=sum(mentions[:2]) / max(1, sum(mentions)),
            misordered=self.misordered / max(1, sentences),
            beings=self.beings,
        )


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
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("ses", "xes", "ches", "shes")):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith("ss") else word
