"""`python -m services.student_trainer`: pretrain, interact, or both, in a run folder that holds a run.yaml."""

import os
import signal
import sys
import threading
from enum import StrEnum
from pathlib import Path
from typing import Annotated

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


def _work(run_dir: Path, redis_url: str | None, style: ProgressStyle | None, phases: tuple[str, ...]) -> None:
    """Do the phases; errors that a user can mend become one message and an exit status."""
    if "interact" in phases and redis_url is None:
        _fail("interaction needs the queue to the teacher: give --redis-url or set FABULA_REDIS_URL", EXIT_USAGE)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    # Imported here so that --help answers at once.
    from services.student_trainer.interaction import StopRequestedError
    from services.student_trainer.ranks import RankLostError
    from services.student_trainer.work import ENDINGS, work

    tty = style is ProgressStyle.TTY or (style is None and sys.stdout.isatty())
    try:
        work(run_dir.resolve(), redis_url, tty, phases, stop)
    except StopRequestedError:
        if _speaks():
            typer.echo("Stopped; the state is saved, and the same command goes on from here.")
        raise typer.Exit(EXIT_STOPPED) from None
    except tuple(ENDINGS) as error:
        status = next(status for kind, status in ENDINGS.items() if isinstance(error, kind))
        _fail(str(error), status, all_speak=isinstance(error, RankLostError))  # the main process may be the one lost


def _fail(message: str, status: int, *, all_speak: bool = False) -> None:
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
