"""`fabula leaderboard`, `results`, `aoa`: what evaluations of runs say, side by side and for BabyLM's leaderboard."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from services.local.errors import CommandError

if TYPE_CHECKING:
    from rich.console import Console

evaluation_app = typer.Typer()


class Track(StrEnum):
    """Of the BabyLM challenge 2025."""

    INTERACTION = "interaction"
    STRICT = "strict"
    STRICT_SMALL = "strict-small"


AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@evaluation_app.command()
def leaderboard(
    run_dirs: Annotated[
        list[Path], typer.Argument(metavar="RUN_DIR...", help="Folders of runs, such as runs/laptop-1a2b3c.")
    ],
    base: Annotated[
        str | None,
        typer.Option(help="Checkpoint to compare with. Left out: the one that interaction starts from."),
    ] = None,
    suite: Annotated[str | None, typer.Option(help="Show the paradigms of one suite, such as blimp.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write every measure to this file, too, one a line.")] = None,
    as_json: AsJson = False,
) -> None:
    """Compare the evaluated checkpoints of one or more runs: a row each, a column a suite.

    Below each value stands the change from the base, on the same items: paired bootstrap interval and McNemar's exact
    p. A rise of the story score beyond chance while minimal pairs fell beyond chance is flagged.
    """
    from services.local import leaderboard as boards
    from services.local import leaderboard_tables

    board = boards.leaderboard(run_dirs, base, suite)
    if csv is not None:
        boards.write_csv(run_dirs, suite, csv)
    if as_json:
        typer.echo(board.model_dump_json(indent=2))
    else:
        leaderboard_tables.show(board, _console())


@evaluation_app.command()
def results(
    run_dir: Annotated[Path, typer.Argument(help="Folder of a run, such as runs/paper-1a2b3c.", show_default=False)],
    to: Annotated[Path, typer.Option(help="Folder in which results/<run> is written.")],
    submission: Annotated[
        bool, typer.Option("--submission", help="Write the BabyLM leaderboard's submission file, too.")
    ] = False,
    final: Annotated[
        str | None, typer.Option(help="Checkpoint that stands for main. Left out: the last one evaluated.")
    ] = None,
    track: Annotated[
        Track, typer.Option(help="Of the submission; it decides at which words seen.")
    ] = Track.INTERACTION,
    backend: Annotated[str | None, typer.Option(help="Such as causal or mlm, where there are several.")] = None,
    partial: Annotated[bool, typer.Option("--partial", help="Write an incomplete submission, too.")] = False,
) -> None:
    """Write a run's predictions and reports as the BabyLM 2025 pipeline lays them out, whole or not at all.

    A submission needs the final checkpoint measured on full_eval, glue among it, and each milestone (chck_1M, chck_2M,
    ...) on fast_eval, and on aoa; give one of the two evaluations of a checkpoint its own folder with
    fabula evaluate --output.
    """
    if partial and not submission:
        raise CommandError("--partial is about the submission file; give it together with --submission")
    from services.local import pipeline_results
    from services.local.evaluated import read_run

    found = pipeline_results.collect(read_run(run_dir), track.value, final, backend)
    if not submission:
        place = pipeline_results.write_results(found, to)
        typer.echo(f"{place}: {', '.join(found.files)}; main is {found.final}")
        return
    from services.local.submission import checked

    name, text, problems = checked(found, partial=partial)
    place = pipeline_results.write_results(found, to, (name, text))
    typer.echo(place / name)
    for problem in problems:
        typer.echo(f"! {problem}")


@evaluation_app.command()
def aoa(
    run_dir: Annotated[Path, typer.Argument(help="Folder of a run, such as runs/paper-1a2b3c.", show_default=False)],
    human: Annotated[Path, typer.Option(help="Children's ages: human_aoa.csv of the BabyLM data's cdi_childes.")],
    as_json: AsJson = False,
) -> None:
    """Compare when a run learned words with when children do, over its checkpoints evaluated on the suite aoa.

    Needs five checkpoints or more. Two correlations: as the BabyLM 2025 pipeline computes it, and as the paper that
    it follows (Chang & Bergen 2022). --json lists every word.
    """
    from services.local import acquisition

    result = acquisition.acquisition(run_dir, human)
    if as_json:
        typer.echo(acquisition.as_json(result))
    else:
        acquisition.show(result, _console())


def _console() -> "Console":
    from rich.console import Console

    return Console()
