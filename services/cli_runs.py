"""`fabula ledger`, `runs`, `rescore`, `replay`, `track`, `card`, `push`: what can be done with runs that are there."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from services.local.errors import CommandError

if TYPE_CHECKING:
    from rich.console import Console

runs_app = typer.Typer()

RunDir = Annotated[Path, typer.Argument(help="Folder of a run, such as runs/laptop-1a2b3c.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@runs_app.command()
def ledger(run_dir: RunDir, as_json: AsJson = False) -> None:
    """Show the word account of a run: prompt, teacher's and student's words, what is left, and each checkpoint's.

    The budget counts the prompt once and the teacher's words, by the rules of BabyLM's interaction track. Exit status 1
    where a file of the run cannot be read; it is named.
    """
    from services.local import ledgers

    account = ledgers.read_ledger(run_dir)
    if as_json:
        typer.echo(account.model_dump_json(indent=2))
    else:
        ledgers.show(account, _console())
    if account.problems:
        raise typer.Exit(1)


@runs_app.command()
def runs(
    runs_dir: Annotated[Path, typer.Option(help="Folder that holds a folder for each run.")] = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """List the runs of a folder: how far each is, what its last updates scored, and who judged.

    The score is the mean of the last 10 updates. A start that failed is listed as such: its folder may be deleted.
    """
    from services.local import run_list

    lines = run_list.list_runs(runs_dir)
    if as_json:
        typer.echo(json.dumps([line.model_dump(mode="json") for line in lines], indent=2))
    else:
        run_list.show(lines, runs_dir, _console())


@runs_app.command()
def rescore(
    run_dir: RunDir,
    teacher: Annotated[
        str | None,
        typer.Option(
            help="Who judges in this process: rules:, transformers:FOLDER, ..., or a name of FABULA_TEACHERS_FILE."
        ),
    ] = None,
    url: Annotated[
        str | None, typer.Option(help="Ask a running teacher, such as http://localhost:8001?teacher=NAME.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=2, help="At most so many stories, evenly spread over the run.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Have another teacher judge the stories that a run recorded: did the student learn, or only please its teacher?

    Prints mean scores along the run by both teachers, with intervals, and how far they agree. The new verdicts are
    written to rescored/ in the run's folder; its records stay as they are.
    """
    if (teacher is None) == (url is None):
        raise CommandError("--teacher judges here and --url asks a running teacher; give one of them")
    from services.local import agreement_tables, rescoring

    report = rescoring.rescore(run_dir, url or teacher or "", limit, _console(stderr=True))
    if as_json:
        typer.echo(report.model_dump_json(indent=2))
    else:
        agreement_tables.show(rescoring.parts(report), _console())


@runs_app.command()
def replay(
    run_dir: RunDir,
    to: Annotated[
        Path | None, typer.Option(help="Folder of the new run; left out: RUN_DIR-replay. An unfinished one goes on.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train again from the stories and verdicts that a run recorded: no teacher and no queue.

    On the CPU that the run learned on, its weights come out again byte for byte. Exit status 1 where they do not.
    """
    from services.local import replays

    report = replays.replay(run_dir, to)
    if as_json:
        typer.echo(report.model_dump_json(indent=2))
    else:
        replays.show(report, _console())
    if not report.exact:
        raise typer.Exit(1)


@runs_app.command()
def track(
    run_dir: RunDir,
    to: Annotated[
        list[str] | None,
        typer.Option(help="tensorboard, trackio or wandb; may be repeated. Left out: those of the run's own settings."),
    ] = None,
) -> None:
    """Tell trackers of a run that is over, or what they missed of it. See docs/tracking.md.

    While a run works it does so itself: fabula up --set 'tracking.trackers=[tensorboard]'
    """
    from services.local import tracking

    tracking.track(run_dir, tuple(to or ()), _console())


@runs_app.command()
def card(
    run_dir: RunDir,
    checkpoint: Annotated[str | None, typer.Option(help="Name of a checkpoint. Left out: the run's final one.")] = None,
    to: Annotated[str, typer.Option(help="The repository that the card speaks of.")] = "ORG/NAME",
    output: Annotated[Path | None, typer.Option(help="File to write; left out, the card is printed.")] = None,
) -> None:
    """Write a model card from a run's own records: student, teacher, words, scores with intervals, how to load it.

    `fabula push` puts one into each branch. Every number stands in the run's folder. See docs/sharing.md.
    """
    from services.local import model_card

    text = model_card.card(run_dir, checkpoint, to)
    if output is None:
        typer.echo(text, nl=False)
    else:
        model_card.save(text, output)


@runs_app.command()
def push(
    run_dir: RunDir,
    to: Annotated[str, typer.Option(help="Repository on the Hub, ORG/NAME. It is made where there is none.")],
    checkpoint: Annotated[
        list[str] | None, typer.Option(help="Name of a checkpoint; may be repeated. Left out: all of them.")
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Nobody else may see the repository.")] = False,
    endpoint: Annotated[
        str | None, typer.Option(help="Another Hub, such as http://localhost:8080. Left out: HF_ENDPOINT or the Hub.")
    ] = None,
) -> None:
    """Publish a run's checkpoints as BabyLM expects them: a branch for each, such as chck_90M, the final one on main.

    Sends model, tokenizer and a model card, not the trainer's state. The token is HF_TOKEN's or of `hf auth login`.
    What is there already is not sent again: the same command goes on with a push that broke off. See docs/sharing.md.
    """
    from services.local import hub

    hub.push(run_dir, to, tuple(checkpoint or ()), _console(), private=private, endpoint=endpoint)


def _console(*, stderr: bool = False) -> "Console":
    from rich.console import Console

    return Console(stderr=stderr)
