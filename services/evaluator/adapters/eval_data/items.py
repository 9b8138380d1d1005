"""Items of the ranking suites, in the words and spaces that the BabyLM 2025 pipeline gives the model.

The pipeline takes files in the order in which the file system lists them, we by name: paradigms come in another order,
the rows of a paradigm in the same.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from services.evaluator.adapters.eval_data.layout import require
from services.evaluator.adapters.eval_data.rows import Line, read_lines
from services.evaluator.items import Item, ItemSet, choice, minimal_pair
from services.evaluator.suites.entity_tracking import SPLITS


def load_blimp(folder: Path) -> ItemSet:
    """Minimal pairs of BLiMP: `sentence_good`, `sentence_bad`, and where given `UID`, `field`, `linguistics_term`."""
    return _load(folder, "blimp", _blimp_item)


def load_blimp_supplement(folder: Path) -> ItemSet:
    """Minimal pairs of the BLiMP supplement; a file's name is its paradigm."""
    return _load(folder, "blimp_supplement", _blimp_item)


def load_entity_tracking(folder: Path) -> ItemSet:
    """Questions `input_prefix`, `options`, `numops` from regular.jsonl, ambiref.jsonl and move_contents.jsonl."""
    return _load(folder, "entity_tracking", _entity_item, SPLITS)


def _load(folder: Path, suite: str, item: Callable[[Line], Item], stems: Sequence[str] = ()) -> ItemSet:
    """All items of `suite`; errors are those of `require` and `read_lines`."""
    place = require(folder, suite)
    return ItemSet(tuple(item(line) for line in read_lines(place, suite, stems)), str(place))


def _blimp_item(line: Line) -> Item:
    good, bad = line.text("sentence_good"), line.text("sentence_bad")
    if "field" not in line.row and "UID" not in line.row:
        return minimal_pair(line.stem, good, bad)
    uid = line.text("UID") if "UID" in line.row else line.stem
    field = (
        [("field", line.text("field").replace("syntax_semantics", "syntax/semantics"))] if "field" in line.row else []
    )
    term = [("term", line.text("linguistics_term"))] if "linguistics_term" in line.row else []
    return minimal_pair(uid, good, bad, (*field, *term))


def _entity_item(line: Line) -> Item:
    prefix, options, ops = line.text("input_prefix"), line.row.get("options"), line.row.get("numops")
    if not isinstance(options, list) or len(options) < 2 or not all(isinstance(o, str) and o for o in options):
        raise line.bad(f"options = {options!r}", "a list of two or more non-empty strings, the right one first")
    if not isinstance(ops, int) or isinstance(ops, bool) or ops < 0:
        raise line.bad(f"numops = {ops!r}", "a number of operations, 0 or more")
    return choice(f"{line.stem}_{ops}_ops", prefix, options, (("split", line.stem), ("ops", str(ops))))
