"""`fabula aoa`: are words learned in the order in which children learn them? Over the evaluations of one run."""

from pathlib import Path

from pydantic import TypeAdapter
from rich.console import Console

from services.evaluator.acquisition import Agreement
from services.evaluator.errors import EvaluatorError
from services.evaluator.runners.aoa import age_of_acquisition
from services.evaluator.suites.aoa import MINIMUM_CHECKPOINTS, NAME, AoaResult
from services.local.errors import CommandError
from services.local.evaluated import read_run
from services.local.table import plain_table


def acquisition(run_dir: Path, human_csv: Path) -> AoaResult:
    """Curves of words over all checkpoints that were evaluated on `aoa`, and their agreement with children.

    Raises:
        CommandError: there is no such run, too few of its checkpoints were evaluated on it, or a file cannot be used.
    """
    run = read_run(run_dir)
    folders: dict[str, Path] = {}
    for one in run.evaluations:
        result = one.result(NAME)
        if result is not None and result.status == "ok":
            folders.setdefault(one.report.checkpoint, one.folder / NAME)
    if not folders:
        raise CommandError(
            f"no checkpoint of {run.name} was evaluated on {NAME}; measure at least {MINIMUM_CHECKPOINTS} with: fabula "
            f"evaluate CHECKPOINT --suites {NAME} --eval-data FOLDER",
            exit_code=1,
        )
    try:
        return age_of_acquisition(list(folders.values()), human_csv)
    except EvaluatorError as error:
        raise CommandError(str(error), exit_code=1) from error


def as_json(result: AoaResult) -> str:
    """All of it, words and all."""
    return TypeAdapter(AoaResult).dump_json(result, indent=2).decode()


def show(result: AoaResult, console: Console) -> None:
    """Print both correlations, and what took no part in them."""
    table = plain_table("Age of acquisition: model and children", "arithmetic", "r [95 % interval]", "p", "words")
    for name, found in (("BabyLM pipeline", result.pipeline), ("Chang & Bergen", result.paper)):
        table.add_row(name, *_cells(found))
    console.print(table)
    steps = [f"{one.step} ({one.words_read:,} words)" for one in result.checkpoints]
    console.print(f"{len(steps)} checkpoints, from {steps[0]} to {steps[-1]}", style="dim", highlight=False)
    for words, lack in ((result.without_curve(), "a curve"), (result.without_children(), "an age of children")):
        console.print(f"{len(words)} of {len(result.words)} words without {lack}", style="dim", highlight=False)


def _cells(found: Agreement | None) -> tuple[str, str, str]:
    if found is None:
        return "too few words", "", ""
    return f"{found.r:.3f} [{found.low:.3f}, {found.high:.3f}]", f"{found.p:.3g}", f"{found.n:,}"
