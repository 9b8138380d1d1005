"""Age of acquisition: one checkpoint's surprisals of words, and the curves over checkpoints."""

from collections.abc import Sequence
from pathlib import Path

from services.evaluator.adapters.aoa_data import curves, load_children, load_contexts, load_measured
from services.evaluator.adapters.eval_data import require
from services.evaluator.bench import Bench, Measured
from services.evaluator.errors import ItemsError
from services.evaluator.fitting import MAXIMUM_LEFT_OUT_SHARE
from services.evaluator.suites import aoa


def run(bench: Bench) -> Measured:
    """Surprisals of the words in `cdi_childes.json`; nothing of our own stands in for it."""
    contexts = load_contexts(require(bench.settings.eval_data, aoa.NAME))
    items, room = contexts.items(), bench.engine.context
    lengths = bench.engine.lengths(items)
    long = {i for i, length in enumerate(lengths) if room is not None and length > room}
    note = None
    if long:
        note = f"{len(long)} of {len(items)} contexts are longer than the checkpoint's context of {room} tokens"
        if len(long) > MAXIMUM_LEFT_OUT_SHARE * len(items):
            raise ItemsError(f"{note}; this suite needs a student with a context of {max(lengths)} tokens or more")
    request = bench.request
    checkpoint = aoa.Checkpoint(
        request.checkpoint,
        request.pretraining_words + request.interaction_words,
        len(bench.checkpoint.tokenizer),
    )
    name = request.run or request.path.name
    outcome = aoa.evaluate(contexts, checkpoint, name, bench.engine, long, bench.settings.seed, bench.done(aoa.NAME))
    return Measured(outcome, note, f"zero_shot/{bench.checkpoint.backend}/AoA_word")


def age_of_acquisition(folders: Sequence[Path], human_csv: Path, seed: int = 42) -> aoa.AoaResult:
    """When the words were learned over a run's checkpoints, and how that goes with children.

    Args:
        folders: What `aoa` wrote for each checkpoint (`evaluations/<checkpoint>/aoa`), in any order.
        human_csv: Children's ages, such as cdi_childes/human_aoa.csv.
        seed: Of the intervals.

    Raises:
        BadDataError: a folder or the table cannot be used, or the checkpoints were asked for different contexts.
        SuiteFailedError: there are too few checkpoints for a curve.
    """
    children = load_children(human_csv)
    measured = sorted(map(load_measured, folders), key=lambda one: one.checkpoint.words_read)
    return aoa.fit([one.checkpoint for one in measured], curves(measured), children, seed)
