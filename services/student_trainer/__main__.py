"""`python -m services.student_trainer`: pretrain, interact, or both, in a run folder that holds a run.yaml."""

import os
import signal
import sys
import threading
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NoReturn

import typer

EXIT_USAGE, EXIT_STOPPED = 2, 130

app = typer.Typer(
    help="The student trainer. RUN_DIR holds run.yaml (see `fabula up`); everything a run makes is kept there.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


class ProgressStyle(StrEnum):
    """How progress is shown."""

    TTY = "tty"
    PLAIN = "plain"


RunDir = Annotated[Path, typer.Argument(help="Folder of the run; its name is the run's name.", show_default=False)]
RedisUrl = Annotated[
    str | None, typer.Option(envvar="FABULA_REDIS_URL", help="Queue to the teacher, such as redis://localhost:6379/0.")
]
Style = Annotated[
    ProgressStyle | None, typer.Option("--progress", help="tty rewrites a line in place, plain prints lines.")
]


@app.command()
def run(run_dir: RunDir, redis_url: RedisUrl = None, progress: Style = None) -> None:
    """Pretrain, then interact. Goes on where it was stopped."""
    _work(run_dir, redis_url, progress, ("pretrain", "interact"))


@app.command()
def pretrain(run_dir: RunDir, redis_url: RedisUrl = None, progress: Style = None) -> None:
    """Next-word prediction only. The queue is optional: with it, checkpoints are announced to the evaluator."""
    _work(run_dir, redis_url, progress, ("pretrain",))


@app.command()
def interact(run_dir: RunDir, redis_url: RedisUrl = None, progress: Style = None) -> None:
    """Learn from the teacher only, from the pretrained checkpoint in the run folder or the one run.yaml names."""
    _work(run_dir, redis_url, progress, ("interact",))


@app.command()
def start(
    runs_dir: Annotated[Path, typer.Option(envvar="FABULA_RUNS_DIR", help="Folder of run folders.")] = Path("runs"),
    name: Annotated[
        str | None, typer.Option("--run", envvar="FABULA_RUN", help="Name of the run; by default from its settings.")
    ] = None,
    preset: Annotated[str, typer.Option(envvar="FABULA_PRESET", help="Settings to begin with.")] = "laptop",
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", envvar="FABULA_SET", help="section.key=value; in the variable separated by spaces."),
    ] = None,
    corpus: Annotated[str | None, typer.Option(envvar="FABULA_CORPUS", help="As corpus.source.")] = None,
    teacher: Annotated[str, typer.Option(envvar="FABULA_TEACHER", help="Only for the run's name.")] = "rules:",
    redis_url: RedisUrl = None,
    progress: Style = None,
    await_reports: Annotated[
        bool, typer.Option("--await-reports", help="Then wait for the evaluator and print what the run gained.")
    ] = False,
) -> None:
    """Begin or continue the run that the settings name, all of them also environment variables: for containers."""
    from services.student_trainer.config import ConfigError
    from services.student_trainer.starting import open_run, settings_for

    try:
        settings = settings_for(preset, overrides or (), corpus or None)
        folder = open_run(runs_dir, name or None, settings, teacher)
    except (ConfigError, OSError) as error:
        _fail(str(error), EXIT_USAGE)
    if _speaks():
        typer.echo(f"Run {folder.run} in {folder.path}")
    _work(folder.path, redis_url, progress, ("pretrain", "interact"), await_reports=await_reports)


def _work(
    run_dir: Path,
    redis_url: str | None,
    style: ProgressStyle | None,
    phases: tuple[str, ...],
    *,
    await_reports: bool = False,
) -> None:
    """Do the phases; errors that a user can mend become one message and an exit status."""
    if "interact" in phases and redis_url is None:
        _fail("interaction needs the queue to the teacher: give --redis-url or set FABULA_REDIS_URL", EXIT_USAGE)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    # Imported here so that --help answers at once.
    from services.student_trainer.interaction import StopRequestedError
    from services.student_trainer.outcome import tell_outcome
    from services.student_trainer.ranks import RankLostError
    from services.student_trainer.run_folder import RunFolder
    from services.student_trainer.work import ENDINGS, work

    tty = style is ProgressStyle.TTY or (style is None and sys.stdout.isatty())
    try:
        work(run_dir.resolve(), redis_url, tty, phases, stop)
        if await_reports and _speaks():
            tell_outcome(RunFolder(run_dir), stop, typer.echo)
    except StopRequestedError:
        if _speaks():
            typer.echo("Stopped; the state is saved, and the same command goes on from here.")
        raise typer.Exit(EXIT_STOPPED) from None
    except tuple(ENDINGS) as error:
        status = next(status for kind, status in ENDINGS.items() if isinstance(error, kind))
        _fail(str(error), status, all_speak=isinstance(error, RankLostError))  # the main process may be the one lost


def _fail(message: str, status: int, *, all_speak: bool = False) -> NoReturn:
    if all_speak or _speaks():
        typer.echo(f"error: {message}", err=True)
    raise typer.Exit(status) from None


def _speaks() -> bool:
    """Whether this process says what all of a run's processes come to."""
    return os.environ.get("RANK", "0") == "0"


if __name__ == "__main__":
    # Hugging Face tokenizers warn when a process with their threads forks; nothing here forks.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    app()
