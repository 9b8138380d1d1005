"""From measures to levels: every constant that was set by hand stands here.

A *quality* is a feature put through a logistic curve (curves.py), so that a learner always finds a direction. Qualities
that must all hold are multiplied, each to the power of its weight over the largest (the weakest counts most);
ingredients that may stand in for each other are averaged.
"""

import math
from collections.abc import Mapping

from services.teacher.judges.rules.curves import Curve, fitted
from services.teacher.judges.rules.measures import Measures

TOP = 3.0
SOFTNESS = 0.65  # power of a product of qualities: without it two faults leave so little that no third one counts
FLOOR = 0.06  # quality that a failed condition leaves, so that the others still count

# What must hold for a text to be readable.
READABILITY: Mapping[str, Curve] = {
    "words": Curve(-4.0, 26.0, 2.0),
    "readability.association": Curve(-0.35, 0.85, 3.0),
    "readability.familiar": Curve(0.50, 0.83, 2.5),
    "readability.broken": Curve(0.32, 0.03, 2.0),
    "readability.known_words": Curve(0.80, 0.98, 2.0),
    "readability.sentence_fit": Curve(0.40, 0.92, 1.5),
    "readability.finite": Curve(0.30, 0.85, 1.0),
    "readability.listed": Curve(0.20, 0.01, 1.5),
    "readability.capitals": Curve(0.45, 0.10, 1.0),
    "readability.grammar_slips": Curve(6.0, 0.2, 2.0),
    "readability.case_errors": Curve(8.0, 0.3, 0.6),
    "readability.mark_errors": Curve(9.0, 0.6, 0.6),
    "repetition.stale_sentences": Curve(0.9, 0.2, 0.5),
}
# What makes a text hang together stands in data/coherence.json, fitted by fit.py to readers' ratings.
# What breaks it.
COHERENCE_LIMITS: Mapping[str, Curve] = {
    "words": Curve(8.0, 65.0, 2.5),
    "sentences": Curve(0.5, 4.5, 0.7),
    "repetition.stale_sentences": Curve(0.50, 0.03, 2.0),
    "repetition.repeated_trigrams": Curve(0.40, 0.04, 2.0),
    "repetition.repeated_frames": Curve(0.70, 0.05, 1.0),
    "continuity.linked": Curve(0.0, 0.45, 1.5),
    "continuity.chained": Curve(0.0, 0.45, 1.3),
    "continuity.lone_beings": Curve(1.0, 0.15, 1.5),
    "continuity.new_per_sentence": Curve(4.0, 1.8, 1.0),
    "continuity.clashes": Curve(0.35, 0.0, 1.3),
    "continuity.misordered": Curve(0.30, 0.0, 2.5),
    "discourse.misplaced": Curve(0.60, 0.05, 1.5),
    "discourse.tense": Curve(0.35, 0.85, 1.0),
    "style.unattributed": Curve(0.90, 0.20, 1.0),
    "discourse.connective_excess": Curve(1.0, 0.05, 1.5),
    "discourse.initial_connectives": Curve(1.0, 0.40, 1.0),
    "tricks.grading": Curve(4.0, 0.5, 1.0),
    "tricks.number_row": Curve(4.0, 0.5, 1.0),
}
# How surely it is one story: the log-odds of data/thread.json. A longer text has scenes, between which threads break.
THREAD = Curve(-3.0, 2.0, 1.0)
SCENE = 80  # words up to which the thread counts in full
# What makes a text engaging.
CREATIVITY: Mapping[str, Curve] = {
    "repetition.moving_ttr": Curve(0.55, 0.88, 2.0),
    "style.rarity": Curve(0.08, 0.50, 2.2),
    "style.content_types": Curve(0.12, 0.40, 1.6),
    "style.vivid": Curve(-1.5, 4.5, 1.5),
    "style.similes": Curve(-0.8, 1.8, 0.6),
    "style.dialogue": Curve(-0.15, 0.30, 1.0),
    "style.cliches": Curve(5.0, -0.5, 1.2),
}
# What makes it dull, or hides it.
CREATIVITY_LIMITS: Mapping[str, Curve] = {
    "words": Curve(8.0, 65.0, 2.5),
    "repetition.stale_sentences": Curve(0.50, 0.03, 2.0),
    "repetition.repeated_trigrams": Curve(0.40, 0.04, 2.0),
    "repetition.repeated_frames": Curve(0.70, 0.05, 1.0),
    "discourse.connective_excess": Curve(1.5, 0.1, 0.7),
    "style.adjectives": Curve(0.80, 0.30, 2.0),
    "style.names": Curve(25.0, 5.0, 1.0),
    "tricks.grading": Curve(4.0, 0.5, 1.0),
    "tricks.number_row": Curve(4.0, 0.5, 1.0),
}
# How much of coherence and creativity is left to a text that cannot be read, and of creativity to one that wanders:
# the quality of the other criterion's level.
READABLE = Curve(0.2, 1.9, 1.0)
FOLLOWED = Curve(0.0, 1.9, 0.8)
CRITERIA = ("readability", "coherence", "creativity")


def levels(measures: Measures) -> dict[str, float]:
    """Each criterion's level, continuous in 0..3; all 0 where no story is told."""
    if not measures.tells:
        return dict.fromkeys(CRITERIA, 0.0)
    values = measures.flat()
    readability = TOP * _all_of(READABILITY, values)
    readable = READABLE.quality(readability)
    coherence = TOP * fitted("coherence").score(values) * unbroken(values)
    followed = FOLLOWED.quality(coherence) ** FOLLOWED.weight
    creativity = TOP * _any_of(CREATIVITY, values) * _all_of(CREATIVITY_LIMITS, values) * readable * followed
    return {"readability": readability, "coherence": coherence, "creativity": creativity}


def unbroken(values: Mapping[str, float]) -> float:
    """What the limits leave of coherence, 0..1, and what can be read of it."""
    thread = FLOOR + (1.0 - FLOOR) * THREAD.quality(fitted("thread").score(values))
    one_story = thread ** (THREAD.weight * min(1.0, SCENE / values["words"]))
    readable = READABLE.quality(TOP * _all_of(READABILITY, values))
    return float(_all_of(COHERENCE_LIMITS, values) * one_story * readable)


def _all_of(curves: Mapping[str, Curve], values: Mapping[str, float]) -> float:
    """Product of qualities, each to the power SOFTNESS times its weight's share of the largest weight."""
    top = max(curve.weight for curve in curves.values())
    logs = (c.weight * math.log(FLOOR + (1.0 - FLOOR) * c.quality(values[name])) for name, c in curves.items())
    return math.exp(SOFTNESS / top * sum(logs))


def _any_of(curves: Mapping[str, Curve], values: Mapping[str, float]) -> float:
    """Weighted mean of qualities."""
    weight = sum(curve.weight for curve in curves.values())
    return sum(c.weight * c.quality(values[name]) for name, c in curves.items()) / weight


def distribution(level: float, count: int = 4) -> list[float]:
    """A level in 0..3 as probabilities over `count` levels whose mean is that level, rescaled to 0..count-1.

    All mass lies on the two neighbouring whole levels, in proportion to nearness (linear interpolation).
    """
    position = max(0.0, min(float(count - 1), level / TOP * (count - 1)))
    lower = min(count - 2, int(position))
    share = position - lower
    return [1.0 - share if i == lower else share if i == lower + 1 else 0.0 for i in range(count)]
