"""Items of the ranking suites, in the words and spaces that the BabyLM 2025 pipeline gives the model.

The pipeline takes files in the order in which the file system lists them, we by name: paradigms come in another order,
the rows of a paradigm in the same.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from services.evaluator.adapters.eval_data.layout import GET_IT, require
from services.evaluator.adapters.eval_data.rows import Line, read_lines
from services.evaluator.errors import MissingDataError
from services.evaluator.items import Candidate, Item, ItemSet, choice, minimal_pair
from services.evaluator.suites import blimp, blimp_supplement, comps, entity_tracking, ewok, wug_adj, wug_past


def load_blimp(data: Path | str | None) -> ItemSet:
    """Minimal pairs of BLiMP: `sentence_good`, `sentence_bad`, and where given `UID`, `field`, `linguistics_term`."""
    return _load(data, blimp.NAME, _blimp_item)


def load_blimp_supplement(data: Path | str | None) -> ItemSet:
    """Minimal pairs of the BLiMP supplement; a file's name is its paradigm."""
    return _load(data, blimp_supplement.NAME, _blimp_item)


def load_entity_tracking(data: Path | str | None) -> ItemSet:
    """Questions `input_prefix`, `options`, `numops` from regular.jsonl, ambiref.jsonl and move_contents.jsonl."""
    return _load(data, entity_tracking.NAME, _entity_item, entity_tracking.SPLITS)


def load_ewok(data: Path | str | None) -> ItemSet:
    """Contexts with two targets: `Context1`, `Target1`, `Target2`, `Domain`, and what kinds of both they are."""
    return _load(data, ewok.NAME, _ewok_item)


def load_comps(data: Path | str | None) -> ItemSet:
    """One property after two subjects: `prefix_acceptable`, `prefix_unacceptable`, `property_phrase`.

    Raises:
        MissingDataError: one of the four files is absent: an average over fewer would be another measure.
    """
    items = _load(data, comps.NAME, _comps_item, tuple(comps.SUBSETS))
    absent = set(comps.SUBSETS.values()) - {item.uid for item in items.items}
    if absent:
        files = ", ".join(f"{stem}.jsonl" for stem, subset in comps.SUBSETS.items() if subset in absent)
        raise MissingDataError(f"{items.source} lacks {files}; COMPS is the average over all four files; {GET_IT}")
    return items


def load_wug_adj(data: Path | str | None) -> ItemSet:
    """Sentences with two nouns of a nonce adjective, and the `ratio` of people who chose the first."""
    return _load(data, wug_adj.NAME, partial(_wug_item, wug_adj.NAME))


def load_wug_past(data: Path | str | None) -> ItemSet:
    """Sentences with two past tenses of a nonce verb, and the `ratio` of people who chose the first."""
    return _load(data, wug_past.NAME, partial(_wug_item, wug_past.NAME))


def _load(data: Path | str | None, suite: str, item: Callable[[Line], Item], stems: Sequence[str] = ()) -> ItemSet:
    """All items of `suite`; errors are those of `require` and `read_lines`."""
    place = require(data, suite)
    return ItemSet(tuple(item(line) for line in read_lines(place, suite, stems)), str(place))


def _blimp_item(line: Line) -> Item:
    good, bad = line.text("sentence_good"), line.text("sentence_bad")
    if "field" not in line.row:
        return minimal_pair(line.stem, good, bad, (("field", "supplement"), ("term", "supplement")))
    field = line.text("field").replace("syntax_semantics", "syntax/semantics")
    groups = (("field", field), ("term", line.text("linguistics_term")))
    return minimal_pair(line.text("UID"), good, bad, groups)


def _ewok_item(line: Line) -> Item:
    groups = [
        (group, line.text(key))
        for group, key in (
            ("context_type", "ContextType"),
            ("context_contrast", "ContextDiff"),
            ("target_contrast", "TargetDiff"),
        )
    ]
    targets = [f" {line.text('Target1')}", f" {line.text('Target2')}"]
    return choice(line.text("Domain"), line.text("Context1"), targets, tuple(groups))


def _comps_item(line: Line) -> Item:
    said = line.text("property_phrase")
    subjects = (line.text("prefix_acceptable"), line.text("prefix_unacceptable"))
    return Item(comps.SUBSETS[line.stem], tuple(Candidate(f"{subject} ", said) for subject in subjects))


def _wug_item(suite: str, line: Line) -> Item:
    forms = line.text("sentences").split("\t")
    if len(forms) < 2 or not all(form.strip() for form in forms):
        raise line.bad(f"sentences = {line.row['sentences']!r}", "two or more sentences with tabs between them")
    return Item(suite, tuple(Candidate("", form) for form in forms), rating=line.number_of("ratio"))


def _entity_item(line: Line) -> Item:
    prefix, options, ops = line.text("input_prefix"), line.row.get("options"), line.row.get("numops")
    if not isinstance(options, list) or len(options) < 2 or not all(isinstance(o, str) and o for o in options):
        raise line.bad(f"options = {options!r}", "a list of two or more non-empty strings, the right one first")
    if not isinstance(ops, int) or isinstance(ops, bool) or ops < 0:
        raise line.bad(f"numops = {ops!r}", "a number of operations, 0 or more")
    return choice(f"{line.stem}_{ops}_ops", prefix, options, (("split", line.stem), ("ops", str(ops))))
