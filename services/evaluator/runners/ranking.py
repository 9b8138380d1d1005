"""Suites in which the model ranks an item's candidates by log-probability."""

from collections.abc import Callable
from pathlib import Path

from services.evaluator.adapters import eval_data
from services.evaluator.bench import Bench, Measured
from services.evaluator.engine import ItemsDone, Scorer
from services.evaluator.errors import MissingDataError
from services.evaluator.fitting import leave_out_long
from services.evaluator.generated.box_stories import box_stories
from services.evaluator.generated.minimal_pairs import minimal_pairs
from services.evaluator.items import ItemSet
from services.evaluator.suites import blimp, blimp_supplement, entity_tracking
from services.evaluator.suites.outcome import SuiteOutcome

_Load = Callable[[Path], ItemSet]
_Generate = Callable[[int], ItemSet]
_Evaluate = Callable[[ItemSet, Scorer, int, ItemsDone], SuiteOutcome]


def run_blimp(bench: Bench) -> Measured:
    """BLiMP, or minimal pairs of our own."""
    return _rank(bench, blimp.NAME, eval_data.load_blimp, minimal_pairs, blimp.evaluate)


def run_blimp_supplement(bench: Bench) -> Measured:
    """The supplement; nothing of our own stands in for it."""

    def none(_: int) -> ItemSet:
        raise MissingDataError(
            "no folder of evaluation data was given, and the evaluator's own items stand in for blimp and "
            f"entity_tracking only; give one with --eval-data ({eval_data.GET_IT})"
        )

    return _rank(bench, blimp_supplement.NAME, eval_data.load_blimp_supplement, none, blimp_supplement.evaluate)


def run_entity_tracking(bench: Bench) -> Measured:
    """Entity tracking, or box stories of our own."""
    return _rank(bench, entity_tracking.NAME, eval_data.load_entity_tracking, box_stories, entity_tracking.evaluate)


def _rank(bench: Bench, suite: str, load: _Load, generate: _Generate, evaluate: _Evaluate) -> Measured:
    folder = bench.settings.eval_data
    items = generate(bench.settings.seed) if folder is None else load(folder)
    items, note = leave_out_long(items, bench.engine.lengths(items.items), bench.engine.context)
    return Measured(evaluate(items, bench.engine, bench.settings.seed, bench.done(suite)), note)
