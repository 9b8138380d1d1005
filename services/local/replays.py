"""`fabula replay`: the command around the trainer's replay."""

import sys
from pathlib import Path

from rich.console import Console

from fabula_proto import Message
from services.local.errors import CommandError, not_installed
from services.local.interrupts import Interrupts
from services.local.run_files import checked_folder

try:
    from transformers.utils import logging as transformers_logging

    from services.student_trainer.checkpoints import CheckpointError
    from services.student_trainer.config import ConfigError, load
    from services.student_trainer.corpus_errors import CorpusError
    from services.student_trainer.folder_lock import FolderInUseError
    from services.student_trainer.interaction import StopRequestedError
    from services.student_trainer.progress import Progress
    from services.student_trainer.recorded_verdicts import ReplayError
    from services.student_trainer.replaying import replay as train_again
    from services.student_trainer.run_folder import RunFolder
except ImportError as error:
    raise not_installed(error) from error


class ReplayReport(Message):
    """Everything `fabula replay` says."""

    run: str
    folder: str
    updates: int
    stories: int
    first_difference: int | None
    same_weights: dict[str, bool]

    @property
    def exact(self) -> bool:
        """Whether nothing that could be compared differs."""
        return self.first_difference is None and all(self.same_weights.values())


def replay(run_dir: Path, to: Path | None) -> ReplayReport:
    """Train again from the records of the run in `run_dir`, into `to` or a folder beside it; progress to stderr.

    Raises:
        CommandError: it cannot be replayed, or a signal came.
    """
    folder = checked_folder(run_dir)
    target = (to or folder.with_name(f"{folder.name}-replay")).expanduser().resolve()
    transformers_logging.disable_progress_bar()
    try:
        progress = Progress(load(folder / "run.yaml"), tty=False, out=sys.stderr)
        with Interrupts() as interrupts:
            done = train_again(RunFolder(folder), RunFolder(target), progress.update, lambda: interrupts.stopping)
    except StopRequestedError:
        raise CommandError("stopped; the state is saved, and the same command goes on", exit_code=130) from None
    except (ReplayError, CheckpointError, ConfigError, CorpusError, FolderInUseError, OSError) as error:
        raise CommandError(str(error), exit_code=1) from error
    return ReplayReport(
        run=folder.name,
        folder=str(target),
        updates=done.updates,
        stories=done.stories,
        first_difference=done.differs_at,
        same_weights={weights.checkpoint: weights.same for weights in done.weights},
    )


def show(report: ReplayReport, console: Console) -> None:
    """Say whether the replay is the run over again."""
    lines = [f"Replayed {report.updates} updates of {report.run} with {report.stories} stories into {report.folder}"]
    if report.first_difference is not None:
        lines.append(
            f"From update {report.first_difference} on the stories' KL is not the recorded one to the last bit: the "
            "stories are the same, the arithmetic is not (another machine, version, or number of threads or processes)"
        )
    for checkpoint, same in report.same_weights.items():
        lines.append(f"  {checkpoint}: {'the same weights, byte for byte' if same else 'OTHER weights'}")
    if not report.same_weights:
        lines.append("The run kept no checkpoint at the same place, so that no weights could be compared")
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
