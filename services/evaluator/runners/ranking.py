"""Suites in which the model ranks an item's candidates by log-probability."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from services.evaluator.adapters import eval_data
from services.evaluator.bench import Bench, Measured, Runner
from services.evaluator.engine import ItemsDone, Scorer
from services.evaluator.fitting import leave_out_long
from services.evaluator.generated.box_stories import box_stories
from services.evaluator.generated.minimal_pairs import minimal_pairs
from services.evaluator.items import ItemSet
from services.evaluator.suites import blimp, blimp_supplement, comps, entity_tracking, ewok, wug_adj, wug_past
from services.evaluator.suites.outcome import SuiteOutcome


@dataclass(frozen=True, slots=True)
class _Suite:
    """Where a suite's items come from and what becomes of them.

    `task` is the pipeline's name for it; `generate` makes items of our own for when there are no data.
    """

    name: str
    task: str
    load: Callable[[Path | str | None], ItemSet]
    evaluate: Callable[[ItemSet, Scorer, int, ItemsDone], SuiteOutcome]
    generate: Callable[[int], ItemSet] | None = None


_SUITES = (
    _Suite(blimp.NAME, "blimp", eval_data.load_blimp, blimp.evaluate, minimal_pairs),
    _Suite(blimp_supplement.NAME, "blimp", eval_data.load_blimp_supplement, blimp_supplement.evaluate),
    _Suite(ewok.NAME, "ewok", eval_data.load_ewok, ewok.evaluate),
    _Suite(
        entity_tracking.NAME,
        "entity_tracking",
        eval_data.load_entity_tracking,
        entity_tracking.evaluate,
        box_stories,
    ),
    _Suite(wug_adj.NAME, "wug_adj", eval_data.load_wug_adj, wug_adj.evaluate),
    _Suite(wug_past.NAME, "wug_past", eval_data.load_wug_past, wug_past.evaluate),
    _Suite(comps.NAME, "comps", eval_data.load_comps, comps.evaluate),
)


def _rank(suite: _Suite, bench: Bench) -> Measured:
    data = bench.settings.eval_data
    if data is None and suite.generate is not None:
        items, results_path = suite.generate(bench.settings.seed), None
    else:
        items = suite.load(data)
        results_path = f"zero_shot/{bench.checkpoint.backend}/{suite.task}/{Path(items.source).stem}"
    items, note = leave_out_long(items, bench.engine.lengths(items.items), bench.engine.context)
    outcome = suite.evaluate(items, bench.engine, bench.settings.seed, bench.done(suite.name))
    return Measured(outcome, note, results_path)


RUNNERS: Mapping[str, Runner] = {suite.name: partial(_rank, suite) for suite in _SUITES}
