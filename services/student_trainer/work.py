"""What the commands do: phases of a run, in a folder that is ours for the time, with its trackers."""

import threading
from collections.abc import Collection
from contextlib import ExitStack
from pathlib import Path

from transformers.utils import logging as transformers_logging

from fabula_proto.streams import Streams, TransportError
from services.student_trainer.algorithms.updating import NotFiniteError
from services.student_trainer.checkpoints import CheckpointError
from services.student_trainer.config import ConfigError
from services.student_trainer.corpus import CorpusError
from services.student_trainer.folder_lock import FolderInUseError, FolderLock
from services.student_trainer.guards.guards import GuardStopError
from services.student_trainer.interaction import TeacherFailedError
from services.student_trainer.ranks import Beat, RankFailedError, RankLostError, Ranks
from services.student_trainer.rewards import UnknownCriterionError
from services.student_trainer.run import Trainer
from services.student_trainer.run_folder import RunFolder
from services.student_trainer.story_queue import NoVerdictsError
from services.student_trainer.student import StudentError
from services.student_trainer.trackers import Trackers

USAGE, FAILED, GUARD = 2, 3, 4
ENDINGS: dict[type[Exception], int] = {
    ConfigError: USAGE,
    CorpusError: USAGE,
    CheckpointError: USAGE,
    FolderInUseError: USAGE,
    StudentError: USAGE,
    UnknownCriterionError: USAGE,
    GuardStopError: GUARD,
    RankLostError: FAILED,
    RankFailedError: FAILED,
    TeacherFailedError: FAILED,
    NoVerdictsError: FAILED,
    NotFiniteError: FAILED,
    TransportError: FAILED,
    OSError: FAILED,
}
"""Errors that whoever started the run can mend, and their exit statuses."""


def work(run_dir: Path, redis_url: str | None, tty: bool, phases: Collection[str], stop: threading.Event) -> None:
    """Do the phases, `pretrain` and `interact`; `tty` rewrites a line of progress in place.

    Raises:
        StopRequestedError: `stop` was set; the state is saved.
        Those of ENDINGS.
    """
    transformers_logging.disable_progress_bar()  # saving a checkpoint is one line of ours
    folder = RunFolder(run_dir)
    with ExitStack() as held:
        streams = held.enter_context(Streams(redis_url)) if redis_url is not None else None
        if streams is not None and "interact" in phases:
            streams.ping()  # now, not after the whole pretraining
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
