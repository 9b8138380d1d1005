"""EWoK (Ivanova et al. 2024): which of two sentences goes with a context, by what one must know of the world?

As the BabyLM 2025 pipeline asks it: a context is followed by either target, and the target's tokens alone are scored.
A row of the data is one item; the files hold every pair of contexts twice, with contexts and targets swapped. Headline:
mean accuracy over domains.
"""

from services.evaluator.engine import ItemsDone, Scorer
from services.evaluator.items import ItemSet
from services.evaluator.suites.outcome import PARADIGM, SuiteOutcome, accuracy_outcome, rank

NAME = "ewok"
HEADINGS = {
    "UID": PARADIGM,
    "CONTEXT_TYPE": "context_type",
    "CONTEXT_CONTRAST": "context_contrast",
    "TARGET_CONTRAST": "target_contrast",
}


def evaluate(item_set: ItemSet, scorer: Scorer, seed: int, done: ItemsDone) -> SuiteOutcome:
    """Score items with groups `context_type`, `context_contrast` and `target_contrast`; the paradigm is the domain."""
    return accuracy_outcome(item_set, rank(item_set, scorer, done), seed, HEADINGS)
