"""What the two wug suites share: do people's and the model's preferences between forms of a nonce word go together?

As the BabyLM 2025 pipeline's current code computes it: the model's preference is the first form's share in the
softmax of all log-probabilities, in fp32 (so far preferences tie at 0 and 1, which the ranks see), and the result is
Spearman's correlation with the share of people who chose the first form. Neither form is right. Earlier versions of the
pipeline reported how often the first form was the more probable, which is another measure.
"""

import json

import torch

from services.evaluator.correlation import PREFERENCES_FILE, spearman_interval
from services.evaluator.engine import ItemsDone, Scorer
from services.evaluator.errors import SuiteFailedError
from services.evaluator.items import ItemSet
from services.evaluator.suites.outcome import PREDICTIONS_FILE, TIES_FILE, Ranking, SuiteOutcome, as_json, as_measure
from services.evaluator.suites.pipeline_report import REPORT_FILE, report_text

SPEARMAN = "spearman"
UNIT = "correlation"


def evaluate(item_set: ItemSet, scorer: Scorer, seed: int, done: ItemsDone) -> SuiteOutcome:
    """Score pairs with a `rating`; all are of one paradigm, the suite.

    Raises:
        SuiteFailedError: the model prefers the first form equally in every item, so that nothing correlates.
    """
    scores = scorer.score(item_set.items, done)
    preferences = [float(torch.tensor(row, dtype=torch.float32).softmax(0)[0]) for row in scores]
    ratings = [item.rating for item in item_set.items if item.rating is not None]
    try:
        estimate = spearman_interval(preferences, ratings, seed)
    except ValueError as error:
        raise SuiteFailedError(f"no correlation with people's preferences: {error}") from error
    ranking = Ranking.of(item_set.items, scores)
    return SuiteOutcome(
        source=item_set.source,
        headline=SPEARMAN,
        unit=UNIT,
        measures={SPEARMAN: as_measure(estimate)},
        files={
            PREDICTIONS_FILE: json.dumps(_predictions(ranking, preferences)),
            REPORT_FILE: report_text([("UID", {"avg": estimate.value})], estimate.value, "SPEARMAN'S RHO"),
            PREFERENCES_FILE: as_json(list(zip(ratings, preferences, strict=True))),
            TIES_FILE: ranking.ties_file(),
        },
    )


def _predictions(ranking: Ranking, preferences: list[float]) -> dict[str, dict[str, list[dict[str, str | float]]]]:
    by_uid = ranking.predictions()
    left = iter(preferences)
    for rows in by_uid.values():
        for row in rows["predictions"]:
            row["prob"] = next(left)
    return by_uid
