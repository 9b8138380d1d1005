"""BLiMP supplement (BabyLM): dialogue, questions and hypernyms, as minimal pairs. Headline: mean over the files."""

from services.evaluator.engine import ItemsDone, Scorer
from services.evaluator.items import ItemSet
from services.evaluator.suites.blimp import HEADINGS
from services.evaluator.suites.outcome import ACCURACY, SuiteOutcome, minimal_pair_measures, rank, sections
from services.evaluator.suites.pipeline_report import accuracy_report

NAME = "blimp_supplement"


def evaluate(item_set: ItemSet, scorer: Scorer, seed: int, done: ItemsDone) -> SuiteOutcome:
    """Score the supplement's pairs. Their field and term are both `supplement`, which the pipeline's report lists."""
    ranking = rank(item_set, scorer, done)
    return SuiteOutcome(
        source=item_set.source,
        headline=ACCURACY,
        unit=ACCURACY,
        measures=minimal_pair_measures(ranking, seed),
        files=ranking.files(accuracy_report(sections(ranking, HEADINGS))),
    )
