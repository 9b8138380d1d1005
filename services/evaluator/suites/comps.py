"""COMPS (Misra et al. 2023): does a concept, or a nonce word said to be one, have the properties of its kind?

One property follows two subjects; its tokens alone are scored. Headline: mean accuracy over the four subsets, as the
BabyLM 2025 pipeline averages.
"""

from services.evaluator.engine import ItemsDone, Scorer
from services.evaluator.items import ItemSet
from services.evaluator.suites.outcome import PARADIGM, SuiteOutcome, accuracy_outcome, rank

NAME = "comps"
SUBSETS = {
    "comps_base": "base",
    "comps_wugs": "wugs",
    "comps_wugs_dist-before": "wugs_dist_before",
    "comps_wugs_dist-in-between": "wugs_dist_in_between",
}
"""A file's name without its ending -> the subset that it is."""


def evaluate(item_set: ItemSet, scorer: Scorer, seed: int, done: ItemsDone) -> SuiteOutcome:
    """Score items whose paradigm is the subset; predictions name the whole sentence, as the pipeline's do."""
    return accuracy_outcome(item_set, rank(item_set, scorer, done), seed, {"UID": PARADIGM}, whole_texts=True)
