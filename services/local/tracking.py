"""`fabula track`: a run that was recorded is told to trackers afterwards."""

from pathlib import Path
from typing import get_args

from rich.console import Console

from services.local.errors import CommandError
from services.local.run_files import checked_folder
from services.local.run_list import in_use
from services.student_trainer import config
from services.student_trainer.settings import TrackerName
from services.student_trainer.trackers import Trackers

LONGEST_S = 3600.0


def track(run_dir: Path, names: tuple[str, ...], console: Console) -> None:
    """Tell the trackers `names`, or those of run.yaml, every line of the run that they do not have yet.

    Raises:
        CommandError: there is no run, it is at work, there is no such tracker, or one failed.
    """
    folder = checked_folder(run_dir)
    try:
        settings = config.load(folder / "run.yaml").tracking
    except config.ConfigError as error:
        raise CommandError(str(error)) from error
    chosen = names or settings.trackers
    known = get_args(TrackerName)
    if not chosen or set(chosen) - set(known):
        raise CommandError(
            f"trackers {', '.join(chosen) or '(none; run.yaml names none)'}: give one or more of {', '.join(known)}, "
            "such as --to tensorboard"
        )
    if in_use(folder):
        raise CommandError(f"run {folder.name} is at work, and tells the trackers of its run.yaml itself; wait for it")
    failures: list[str] = []
    told = settings.model_copy(update={"trackers": chosen, "close_s": LONGEST_S})
    with Trackers(folder, told, failures.append) as trackers:
        trackers.close()
    if failures:
        raise CommandError("\n".join(failures), exit_code=1)
    for name in chosen:
        line = f"{name} has all of {folder.name}; what it said: {folder / 'tracking' / name}.log"
        console.print(line, highlight=False, markup=False, soft_wrap=True)
