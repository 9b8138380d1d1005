"""`python -m services.student_trainer`: pretrain, interact, or both, in a run folder that holds a run.yaml."""

import os
import signal
import sys
import threading
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

EXIT_USAGE, EXIT_FAILED, EXIT_GUARD, EXIT_STOPPED = 2, 3, 4, 130

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
    from transformers.utils import logging as transformers_logging

    from fabula_proto.streams import Streams, TransportError
    from services.student_trainer.algorithms.updating import NotFiniteError
    from services.student_trainer.checkpoints import CheckpointError
    from services.student_trainer.config import ConfigError
    from services.student_trainer.corpus import CorpusError
    from services.student_trainer.folder_lock import FolderInUseError, FolderLock
    from services.student_trainer.guards.guards import GuardStopError
    from services.student_trainer.interaction import StopRequestedError, TeacherFailedError
    from services.student_trainer.ranks import Beat, RankFailedError, RankLostError, Ranks
    from services.student_trainer.rewards import UnknownCriterionError
    from services.student_trainer.run import Trainer
    from services.student_trainer.run_folder import RunFolder
    from services.student_trainer.story_queue import NoVerdictsError
    from services.student_trainer.student import StudentError
    from services.student_trainer.trackers import Trackers

    transformers_logging.disable_progress_bar()  # saving a checkpoint is one line of ours
    tty = style is ProgressStyle.TTY or (style is None and sys.stdout.isatty())
    streams = Streams(redis_url) if redis_url is not None else None
    try:
        if streams is not None and "interact" in phases:
            streams.ping()  # now, not after the whole pretraining
        folder = RunFolder(run_dir.resolve())
        with ExitStack() as held:
            ranks = Ranks.from_environment()
            held.callback(ranks.close)
            trainer = Trainer(folder, stop, tty, streams, ranks)

            def warn(text: str) -> None:
                trainer.say(f"! {text}. The run goes on; `fabula track {folder.path}` tells it the rest later.")

            def hold(_: Beat) -> None:
                held.enter_context(FolderLock(folder.path))
                held.enter_context(Trackers(folder.path, trainer.settings.tracking, warn))

            ranks.on_main(hold)
            trainer.announce_unmeasured()
            if "pretrain" in phases:
                trainer.pretrain()
            if "interact" in phases:
                trainer.interact()
    except StopRequestedError:
        if _speaks():
            typer.echo("Stopped; the state is saved, and the same command goes on from here.")
        raise typer.Exit(EXIT_STOPPED) from None
    except (ConfigError, CorpusError, CheckpointError, FolderInUseError, StudentError, UnknownCriterionError) as error:
        _fail(str(error), EXIT_USAGE)
    except GuardStopError as error:
        _fail(str(error), EXIT_GUARD)
    except RankLostError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(EXIT_FAILED) from None
    except (TeacherFailedError, NoVerdictsError, NotFiniteError, RankFailedError, TransportError, OSError) as error:
        _fail(str(error), EXIT_FAILED)
    finally:
        if streams is not None:
            streams.close()


def _fail(message: str, status: int) -> None:
    if _speaks():
        typer.echo(f"error: {message}", err=True)
    raise typer.Exit(status)


def _speaks() -> bool:
    """Whether this process says what all of a run's processes come to."""
    return os.environ.get("RANK", "0") == "0"


if __name__ == "__main__":
    # Hugging Face tokenizers warn when a process with their threads forks; nothing here forks.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    app()
