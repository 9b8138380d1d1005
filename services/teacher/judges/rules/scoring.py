"""From measures to levels: every constant of the rule set stands here.

A *quality* is a feature put through a logistic curve: about 0.1 at `low` and 0.9 at `high`, with a slope everywhere, so
that a learner always finds a direction. Qualities that must all hold are multiplied, each to the
power of its weight over the largest (the weakest counts most); ingredients that may stand in for each other are
averaged.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

from services.teacher.judges.rules.measures import Measures

RULES_VERSION = "1"
TOP = 3.0
FLOOR = 0.06  # quality that a failed condition leaves, so that the others still count


class Curve(NamedTuple):
    """Quality 0.1 at `low`, 0.9 at `high`; falling where low > high. `weight` among its fellows."""

    low: float
    high: float
    weight: float

    def quality(self, value: float) -> float:
        """The feature's quality, in (0, 1)."""
        slope = 2.0 * math.log(9.0) / (self.high - self.low)
        exponent = max(-40.0, min(40.0, -slope * (value - 0.5 * (self.low + self.high))))
        return 1.0 / (1.0 + math.exp(exponent))


# What must hold for a text to be readable.
READABILITY: Mapping[str, Curve] = {
    "readability.association": Curve(-0.3, 0.65, 3.0),
    "readability.broken": Curve(0.40, 0.08, 2.0),
    "readability.known_words": Curve(0.75, 0.95, 2.0),
    "readability.sentence_fit": Curve(0.40, 0.85, 1.5),
    "readability.finite": Curve(0.40, 0.80, 1.0),
    "readability.listed": Curve(0.20, 0.03, 1.5),
    "readability.capitals": Curve(0.40, 0.15, 1.0),
    "readability.agreement_errors": Curve(9.0, 1.0, 1.5),
    "readability.case_errors": Curve(7.0, 1.0, 0.5),
    "readability.mark_errors": Curve(8.0, 1.5, 0.5),
    "repetition.stale_sentences": Curve(0.8, 0.3, 0.5),
}
# What makes a text hang together.
COHERENCE: Mapping[str, Curve] = {
    "continuity.linked": Curve(0.30, 0.80, 3.0),
    "continuity.resolved": Curve(0.55, 0.90, 1.5),
    "discourse.tense": Curve(0.60, 0.85, 1.0),
    "discourse.arc": Curve(0.10, 0.80, 2.0),
    "discourse.connective_kinds": Curve(0.0, 0.40, 0.7),
    "discourse.closure": Curve(-0.2, 0.9, 0.7),
    "discourse.ended": Curve(-0.2, 0.9, 1.5),
    "discourse.opener": Curve(-0.5, 0.8, 0.5),
}
# What breaks it.
COHERENCE_LIMITS: Mapping[str, Curve] = {
    "words": Curve(8.0, 45.0, 2.0),
    "sentences": Curve(0.5, 3.5, 1.0),
    "repetition.stale_sentences": Curve(0.45, 0.08, 2.0),
    "repetition.repeated_trigrams": Curve(0.40, 0.10, 2.0),
    "repetition.repeated_frames": Curve(0.60, 0.15, 1.0),
    "continuity.clashes": Curve(0.45, 0.05, 1.0),
    "continuity.new_per_sentence": Curve(4.5, 2.4, 1.0),
    "continuity.misordered": Curve(0.35, 0.05, 1.5),
    "discourse.misplaced": Curve(0.70, 0.20, 0.8),
    "discourse.connective_excess": Curve(1.0, 0.15, 1.5),
}
# What makes a text engaging.
CREATIVITY: Mapping[str, Curve] = {
    "repetition.moving_ttr": Curve(0.55, 0.85, 2.0),
    "style.rarity": Curve(0.10, 0.45, 2.0),
    "style.content_types": Curve(0.12, 0.36, 1.5),
    "style.vivid": Curve(-1.0, 6.0, 2.0),
    "style.similes": Curve(-0.8, 1.6, 0.7),
    "style.dialogue": Curve(-0.15, 0.30, 1.2),
    "style.cliches": Curve(5.0, 0.0, 1.2),
    "continuity.beings": Curve(-0.5, 3.0, 0.6),
}
# What makes it dull.
CREATIVITY_LIMITS: Mapping[str, Curve] = {
    "words": Curve(8.0, 45.0, 1.5),
    "repetition.stale_sentences": Curve(0.45, 0.08, 2.0),
    "repetition.repeated_trigrams": Curve(0.40, 0.10, 2.0),
    "repetition.repeated_frames": Curve(0.60, 0.15, 1.0),
    "discourse.connective_excess": Curve(1.5, 0.3, 0.7),
}
# How much of coherence and creativity is left to a text that cannot be read: quality of the readability level.
READABLE = Curve(0.5, 2.0, 1.0)
GATE_POWER = {"coherence": 1.0, "creativity": 1.2}
CRITERIA = ("readability", "coherence", "creativity")


def levels(measures: Measures) -> dict[str, float]:
    """Each criterion's level, continuous in 0..3; all 0 where no story is told."""
    if not measures.tells:
        return dict.fromkeys(CRITERIA, 0.0)
    values = measures.flat()
    readability = TOP * _all_of(READABILITY, values)
    gate = READABLE.quality(readability)
    coherence = TOP * _any_of(COHERENCE, values) * _all_of(COHERENCE_LIMITS, values) * gate ** GATE_POWER["coherence"]
    creativity = (
        TOP * _any_of(CREATIVITY, values) * _all_of(CREATIVITY_LIMITS, values) * gate ** GATE_POWER["creativity"]
    )
    return {"readability": readability, "coherence": coherence, "creativity": creativity}


def _all_of(curves: Mapping[str, Curve], values: Mapping[str, float]) -> float:
    """Product of qualities to the power of their weights' shares of the largest weight."""
    top = max(curve.weight for curve in curves.values())
    return math.exp(
        sum(c.weight / top * math.log(FLOOR + (1.0 - FLOOR) * c.quality(values[name])) for name, c in curves.items())
    )


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


def constants() -> str:
    """Every constant that can change a level, as text, for the rule set's revision."""
    tables = (READABILITY, COHERENCE, COHERENCE_LIMITS, CREATIVITY, CREATIVITY_LIMITS, READABLE, GATE_POWER)
    return repr((RULES_VERSION, FLOOR, [sorted(t.items()) if isinstance(t, Mapping) else t for t in tables]))
