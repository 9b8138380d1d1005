"""Entity tracking (Kim & Schuster 2023, as a choice among five): what is in the box after some operations?

Headline: mean over splits (regular, ambiref, move_contents) of the mean over numbers of operations, as the BabyLM
2025 pipeline averages. Chance is 20 %.
"""

from services.evaluator.batching import grouped
from services.evaluator.engine import ItemsDone, Scorer
from services.evaluator.items import ItemSet
from services.evaluator.statistics import Tally
from services.evaluator.suites.outcome import ACCURACY, Ranking, SuiteOutcome, nested_measures, rank
from services.evaluator.suites.pipeline_report import split_report

NAME = "entity_tracking"
SPLITS = ("regular", "ambiref", "move_contents")


def tallies_by_split(ranking: Ranking) -> dict[str, dict[str, Tally]]:
    """Split -> `<n>_ops` -> tally, from the items' groups `split` and `ops`."""
    keys = [(dict(item.groups)["split"], int(dict(item.groups)["ops"])) for item in ranking.items]
    by_split: dict[str, dict[str, Tally]] = {}
    for (split, ops), indices in sorted(grouped(keys).items()):
        right = sum(ranking.choices[i] == 0 for i in indices)
        by_split.setdefault(split, {})[f"{ops}_ops"] = Tally(right, len(indices))
    return by_split


def evaluate(item_set: ItemSet, scorer: Scorer, seed: int, done: ItemsDone) -> SuiteOutcome:
    """Score questions with groups `split` and `ops`."""
    ranking = rank(item_set, scorer, done)
    by_split = tallies_by_split(ranking)
    splits = [*(s for s in SPLITS if s in by_split), *(s for s in by_split if s not in SPLITS)]
    return SuiteOutcome(
        source=item_set.source,
        headline=ACCURACY,
        unit=ACCURACY,
        measures=nested_measures(by_split, seed),
        files=ranking.files(split_report(ranking.tallies(), splits)),
    )
