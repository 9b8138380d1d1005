"""Discourse: tense, connectives, the parts of a tale in their order, an ending."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from services.teacher.judges.rules.classes import group
from services.teacher.judges.rules.cues import find
from services.teacher.judges.rules.grammar import PAST_LABELS, PRESENT_LABELS
from services.teacher.judges.rules.lexicon import Word

PARTS = ("story_setting", "story_problem", "story_attempt", "story_resolution")
# Where in the story, 0..1, each part is at home: (from, to).
PLACES = {
    "story_setting": (0.0, 0.45),
    "story_problem": (0.1, 0.8),
    "story_attempt": (0.2, 0.9),
    "story_resolution": (0.6, 1.0),
}

LONG = 150  # words from which on a tale may have several scenes


class Discourse(NamedTuple):
    """Shares are 0..1."""

    tense: float  # share of finite verbs outside quotations that are in the commoner tense, smoothed
    connective_kinds: float  # different connectives a sentence
    connective_excess: float  # connectives above one a clause-like stretch of 8 words, a sentence
    initial_connectives: float  # share of sentences that start with a connective
    arc: float  # share of the four parts of a tale found where they are at home
    misplaced: float  # settings late, resolutions early: share of such cues that are not at home
    ended: float  # 1 closed by a full stop or the like, 0 broken off
    closure: float  # 1 if the last fifth sounds like an end
    opener: float  # 1 unless the first sentence points back to something told before


def discourse(sentences: Sequence[Sequence[Word]], *, closed: bool) -> Discourse:
    """Measure a tagged story; `closed` says whether its last sentence has its closing mark."""
    words = [w for s in sentences for w in s if w.token.kind == "word"]
    count = max(1, len(words))
    kinds, excess, initial = _connectives(sentences)
    arc, misplaced, closure = _arc(sentences)
    first = [w.token.lower for w in sentences[0] if w.token.kind == "word"] if sentences else []
    opener = 0.0 if first and first[0] in group("continuing_openers") else 1.0
    return Discourse(
        tense=_tense(words),
        connective_kinds=kinds / max(1, len(sentences)),
        connective_excess=excess / max(1.0, count / 12.0),
        initial_connectives=initial / max(1, len(sentences)),
        arc=arc,
        misplaced=misplaced,
        ended=float(closed),
        closure=closure,
        opener=opener,
    )


def _tense(words: Sequence[Word]) -> float:
    past = sum(w.label in PAST_LABELS for w in words if not w.token.quoted)
    present = sum(w.label in PRESENT_LABELS for w in words if not w.token.quoted)
    return (max(past, present) + 2.0) / (past + present + 2.0)


def _connectives(sentences: Sequence[Sequence[Word]]) -> tuple[int, float, int]:
    kinds: set[str] = set()
    excess, initial = 0.0, 0
    for sentence in sentences:
        lowers = [w.token.lower for w in sentence if w.token.kind == "word"]
        found = [
            (at, cue)
            for name in ("connectives_temporal", "connectives_causal", "connectives_contrast")
            for at, cue in find(lowers, name)
        ]
        kinds.update(cue for _, cue in found)
        excess += max(0.0, len(found) - 1.0 - len(lowers) / 8.0)
        initial += any(at == 0 for at, _ in found)
        places = sorted(at for at, _ in found)
        excess += sum(b - a == 1 for a, b in itertools.pairwise(places))
        # A connective that connects nothing: at the end of its sentence.
        excess += bool(places) and places[-1] == len(lowers) - 1 and found[-1][1] in _MUST_GO_ON
    return len(kinds), excess, initial


_MUST_GO_ON = frozenset(
    {"because", "so", "if", "when", "while", "but", "although", "until", "since", "therefore", "as soon as"}
)


def _arc(sentences: Sequence[Sequence[Word]]) -> tuple[float, float, float]:
    """Arc, misplaced and closure. A sentence counts once for a part, however many of its cues it holds."""
    lowers = [[w.token.lower for w in s if w.token.kind == "word"] for s in sentences]
    count = max(1, sum(len(s) for s in lowers))
    arc, away, cues, closure = 0.0, 0, 0, 0.0
    for part in PARTS:
        low, high = PLACES[part]
        at, places = 0, []
        for words in lowers:
            first = next(find(words, part), None)
            if first is not None:
                places.append((at + first[0]) / count)
            at += len(words)
        at_home = sum(low <= place <= high for place in places)
        arc += 0.25 * (1.0 if at_home > 1 else 0.8 * at_home)
        if part in _BOUND:
            cues, away = cues + len(places), away + len(places) - at_home
        if part == "story_resolution":
            ends = sum(place >= 0.72 for place in places)
            closure = 1.0 if ends > 1 else 0.7 * ends
    # A longer text has scenes, each with a setting and an end of its own.
    return arc, away / (cues + 2.0) * min(1.0, LONG / count), closure


_BOUND = frozenset({"story_setting", "story_resolution"})
