"""BLiMP (Warstadt et al. 2020): is the grammatical sentence of a minimal pair the more probable one?

Headline: mean accuracy over paradigms, as the BabyLM 2025 pipeline averages. The evaluator's own minimal pairs go
through the same arithmetic; their result says `generated` as its source.
"""

from services.evaluator.engine import ItemsDone, Scorer
from services.evaluator.items import ItemSet
from services.evaluator.suites.outcome import PARADIGM, SuiteOutcome, accuracy_outcome, rank

NAME = "blimp"
HEADINGS = {"FIELD": "field", "UID": PARADIGM, "LINGUISTICS_TERM": "term"}


def evaluate(item_set: ItemSet, scorer: Scorer, seed: int, done: ItemsDone) -> SuiteOutcome:
    """Score minimal pairs with groups `field` and `term`."""
    return accuracy_outcome(item_set, rank(item_set, scorer, done), seed, HEADINGS)
