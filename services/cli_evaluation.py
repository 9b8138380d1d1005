"""`fabula leaderboard`: what evaluations of runs say, side by side."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

evaluation_app = typer.Typer()

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@evaluation_app.command()
def leaderboard(
    run_dirs: Annotated[
        list[Path], typer.Argument(metavar="RUN_DIR...", help="Folders of runs, such as runs/laptop-1a2b3c.")
    ],
    base: Annotated[
        str | None,
        typer.Option(help="Evaluation to compare with. Left out: the checkpoint that interaction starts from."),
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


def _console() -> "Console":
    from rich.console import Console

    return Console()
