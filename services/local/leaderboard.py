"""`fabula leaderboard`: checkpoints against suites, what changed from a base, and whether that is beyond chance."""

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from fabula_proto import Measure
from services.evaluator.adapters.files import write_whole
from services.evaluator.comparison import CHOICES_FILE, Change
from services.evaluator.statistics import Tally, macro_accuracy
from services.local.comparing import CHOICES, SEED, STORYTELLING, Comparison, compare
from services.local.errors import CommandError
from services.local.evaluated import Evaluated, EvaluatedRun, read_run, suites_of

GRAMMAR_SUITES = ("blimp", "blimp_supplement")
CSV_COLUMNS = (
    *("run", "checkpoint", "pretraining_words", "interaction_words"),
    *("suite", "measure", "value", "low", "high", "n", "source"),
)


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Delta(_Model):
    """Change from the base, with its 95 % bootstrap interval.

    `p` is McNemar's exact one over all items; `p_holm` the same after Holm's correction over a suite's paradigms.
    """

    value: float
    low: float
    high: float
    p: float | None = None
    p_holm: float | None = None


class Cell(_Model):
    """A suite of a checkpoint, or one paradigm of a suite."""

    status: Literal["ok", "failed", "skipped", "not measured"]
    reason: str | None = None
    unit: str | None = None
    measure: Measure | None = None
    delta: Delta | None = None
    not_compared: str | None = None


class Row(_Model):
    """One evaluation. `base` is what it is compared with; none for a base, and where there is none.

    A base that was evaluated more than once, such as on two sets of data, is compared suite by suite with the
    evaluation that measured the same items.
    """

    run: str
    checkpoint: str
    evaluation: str
    stage: Literal["pretrain", "interact"]
    pretraining_words: int
    interaction_words: int
    is_base: bool
    base: str | None
    cells: dict[str, Cell]
    reward_up_grammar_down: bool = False


class Leaderboard(_Model):
    """`columns` are suites, or the paradigms (or measures) of `suite`."""

    suite: str | None
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    problems: tuple[str, ...]


def leaderboard(run_dirs: Sequence[Path], base: str | None = None, suite: str | None = None) -> Leaderboard:
    """The table of one or more runs, each compared with its own base.

    Args:
        run_dirs: Folders of runs.
        base: Checkpoint, or one of its evaluations, that the others of its run are compared with; none: the
            checkpoint that interaction starts from.
        suite: Show its paradigms instead of all suites.

    Raises:
        CommandError: there is no such run, evaluation or suite, or a file cannot be read.
    """
    runs = [read_run(run_dir) for run_dir in run_dirs]
    suites = suites_of(runs)
    if suite is not None and suite not in suites:
        raise CommandError(f"suite {suite!r} was not measured; there are {', '.join(suites)}")
    problems = [problem for run in runs for problem in run.problems]
    rows = []
    for run in runs:
        start = base or run.start()
        bases = [one for one in run.evaluations if start in (one.report.checkpoint, one.name)]
        if not bases and base is not None:
            known = ", ".join(one.name for one in run.evaluations)
            raise CommandError(f"{run.name} has no evaluation {base!r} to compare with; it has {known}")
        if not bases:
            problems.append(
                f"{run.name}: {start or 'the checkpoint that interaction started from'} was not evaluated, so nothing "
                "is compared with it; evaluate it or give another with --base"
            )
        found = [_row(run, bases, one, suites, suite) for one in run.evaluations]
        rows += [row for row in found if row.cells]
    columns = suites if suite is None else list(dict.fromkeys(name for row in rows for name in row.cells))
    return Leaderboard(suite=suite, columns=tuple(columns), rows=tuple(rows), problems=tuple(problems))


def _row(
    run: EvaluatedRun, bases: Sequence[Evaluated], one: Evaluated, suites: Sequence[str], suite: str | None
) -> Row:
    is_base = any(base is one for base in bases)
    compared = [] if is_base else bases
    if suite is None:
        changes = {name: _compared(compared, one, name) for name in suites}
        cells = {name: _suite_cell(one, name, changes[name]) for name in suites}
        traded = _reward_up_grammar_down(changes)
    else:
        cells, traded = _part_cells(one, suite, _compared(compared, one, suite)), False
    report = one.report
    return Row(
        run=run.name,
        checkpoint=report.checkpoint,
        evaluation=one.name,
        stage=report.stage,
        pretraining_words=report.pretraining_words,
        interaction_words=report.interaction_words,
        is_base=is_base,
        base=compared[0].name if compared else None,
        cells=cells,
        reward_up_grammar_down=traded,
    )


def _compared(bases: Sequence[Evaluated], one: Evaluated, suite: str) -> Comparison:
    """With that evaluation of the base which measured the suite, on the same data if there is one."""
    if not bases:
        return Comparison()
    wanted = one.result(suite)

    def likeness(base: Evaluated) -> tuple[bool, bool]:
        found = base.result(suite)
        return found is not None and found.status == "ok", bool(found and wanted and found.source == wanted.source)

    return compare(max(bases, key=likeness), one, suite)


def _reward_up_grammar_down(changes: dict[str, Comparison]) -> bool:
    """The teacher's score rose beyond chance, and what it does not pay for fell beyond chance."""
    reward = changes.get(STORYTELLING, Comparison()).headline
    grammar = [changes.get(name, Comparison()).headline for name in GRAMMAR_SUITES]
    return reward is not None and reward.rose and any(change is not None and change.fell for change in grammar)


def _suite_cell(one: Evaluated, suite: str, comparison: Comparison) -> Cell:
    result = one.result(suite)
    if result is None:
        return Cell(status="not measured")
    return Cell(
        status=result.status,
        reason=result.reason,
        unit=result.unit,
        measure=result.measures.get(result.headline or ""),
        delta=_delta(comparison.headline),
        not_compared=comparison.why_not,
    )


def _part_cells(one: Evaluated, suite: str, comparison: Comparison) -> dict[str, Cell]:
    """A cell a paradigm; of a suite without right and wrong items, a cell a measure."""
    result = one.result(suite)
    if result is None or result.status != "ok":
        return {}
    choices = one.read(suite, CHOICES_FILE, CHOICES)
    if choices is None:
        return {
            name: Cell(
                status="ok",
                unit=result.unit if name == result.headline else None,
                measure=measure,
                delta=_delta(comparison.headline) if name == result.headline else None,
                not_compared=comparison.why_not,
            )
            for name, measure in result.measures.items()
        }
    corrected = comparison.corrected()
    return {
        uid: Cell(
            status="ok",
            unit=result.unit,
            measure=_accuracy(row),
            delta=_delta(comparison.paradigms.get(uid), corrected.get(uid)),
            not_compared=comparison.why_not,
        )
        for uid, row in choices.items()
    }


def _accuracy(row: Sequence[int]) -> Measure:
    estimate = macro_accuracy({"all": Tally(list(row).count(0), len(row))}, SEED)
    return Measure(value=estimate.value, low=estimate.low, high=estimate.high, n=estimate.n)


def _delta(change: Change | None, p_holm: float | None = None) -> Delta | None:
    if change is None:
        return None
    return Delta(value=change.value, low=change.low, high=change.high, p=change.p, p_holm=p_holm)


def write_csv(run_dirs: Sequence[Path], suite: str | None, path: Path) -> None:
    """Every measure of every evaluation, one a line, in the units of the reports; of one suite where it is named.

    Raises:
        CommandError: there is no such run, or the file cannot be written; an earlier one stays as it was.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(CSV_COLUMNS)
    writer.writerows(row for run_dir in run_dirs for row in _measures(read_run(run_dir), suite))
    try:
        if path.exists() and not path.is_file():  # a pipe or a device holds nothing that could be lost
            path.write_text(text.getvalue(), encoding="utf-8", newline="")
        else:
            write_whole(path.resolve(), text.getvalue())  # a link stays one
    except OSError as error:
        raise CommandError(f"the CSV cannot be written to {path}: {error.strerror}", exit_code=1) from error


def _measures(run: EvaluatedRun, suite: str | None) -> Iterator[tuple[str | int | float, ...]]:
    for one in run.evaluations:
        report = one.report
        for result in report.suites:
            if suite not in (None, result.suite):
                continue
            for name, measure in result.measures.items():
                place = (run.name, report.checkpoint, report.pretraining_words, report.interaction_words)
                numbers = (measure.value, measure.low, measure.high, measure.n)
                yield (*place, result.suite, name, *numbers, result.source)
