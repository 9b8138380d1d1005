"""TensorBoard, Weights & Biases and Trackio, each told of a run's lines exactly once.

A run may be killed and go on at any line, and so may a tracker. What a tracker has already is therefore never kept
beside it but asked of itself (`have`), or everything is written anew from metrics.jsonl, which is complete.
The packages are optional and imported here only, in a process of their own (see trackers.py).
"""

import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import yaml

from services.student_trainer.files import write_atomically
from services.student_trainer.trackers_lines import STORY_COLUMNS, Line

Stories = Sequence[dict[str, Any]]


class Tracker(Protocol):
    """Where a run's numbers go. Any method may raise anything: whoever calls is a process that may fail."""

    have: int
    """Lines of metrics.jsonl that need not be told again."""

    def log(self, line: Line, stories: Stories) -> None:
        """Take a line, and the stories that go with it, if there are."""

    def finish(self) -> None:
        """Send what is not sent yet."""


class TensorBoard:
    """Event files in `tracking/tensorboard/<phase>`, written anew from line 1: there is nothing to be doubled.

    Each phase counts its own steps, so that each is a run of TensorBoard's.
    """

    have = 0

    def __init__(self, folder: Path, project: str, config: dict[str, Any]) -> None:
        from tensorboard.compat.proto import event_pb2
        from tensorboard.plugins.scalar.summary_v2 import scalar_pb
        from tensorboard.plugins.text.summary_v2 import text_pb
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._events, self._scalar, self._text, self._writer = event_pb2, scalar_pb, text_pb, EventFileWriter
        self._folder = tracking_folder(folder) / "tensorboard"
        shutil.rmtree(self._folder, ignore_errors=True)
        self._writers: dict[str, Any] = {}
        self._config = f"```\n{yaml.safe_dump(config, sort_keys=False)}```"

    def log(self, line: Line, stories: Stories) -> None:
        """One event with all numbers of the line."""
        for tag, value in line.scalars.items():
            self._add(line.phase, line.step, self._scalar(tag, value))
        if line.text is not None:
            self._add(line.phase, line.step, self._text(f"{line.phase}/text", line.text))
        if stories:
            text = "\n\n".join(f"**{_points(story['total'])}** {story['text']}" for story in stories)
            self._add(line.phase, line.step, self._text(f"{line.phase}/examples", text))
        self._writers[line.phase].flush()

    def finish(self) -> None:
        """Close the files."""
        for writer in self._writers.values():
            writer.close()

    def _add(self, phase: str, step: int, summary: Any) -> None:
        if phase not in self._writers:
            writer = self._writers[phase] = self._writer(str(self._folder / phase))
            # A TensorBoard that shows the run at this moment drops what it has read of the earlier files.
            start = self._events.SessionLog(status=self._events.SessionLog.START)
            writer.add_event(self._events.Event(step=0, session_log=start))
            writer.add_event(self._events.Event(step=0, summary=self._text("configuration", self._config)))
        self._writers[phase].add_event(self._events.Event(step=step, summary=summary))


class Wandb:
    """Weights & Biases; the environment (WANDB_MODE, WANDB_API_KEY, ...) says where to and as whom.

    Online the server says how far it is. Offline nobody does: the lines are all written anew, and what earlier starts
    of this run had written offline is removed.
    """

    def __init__(self, folder: Path, project: str, config: dict[str, Any]) -> None:
        import wandb

        self._wandb = wandb
        identity, place = run_identity(folder), tracking_folder(folder)
        self._run = wandb.init(
            project=project,
            name=folder.name,
            id=identity,
            resume="allow",
            dir=str(place),
            config=config,
            settings=wandb.Settings(console="off", disable_git=True, save_code=False),
        )
        if self._run.offline:
            for other in (place / "wandb").glob(f"offline-run-*-{identity}"):
                if other != Path(self._run.dir).parent:
                    shutil.rmtree(other)
        # W&B's step is the line's number, from 1; a resumed run starts at the first that it does not have.
        self.have = max(0, self._run.starting_step - 1)
        for phase in ("pretrain", "interact", "alarm"):
            self._run.define_metric(f"{phase}/step", hidden=True)
            self._run.define_metric(f"{phase}/*", step_metric=f"{phase}/step")

    def log(self, line: Line, stories: Stories) -> None:
        """One step."""
        others: dict[str, Any] = {} if line.text is None else {f"{line.phase}/text": line.text}
        if stories:
            rows = [[story[column] for column in STORY_COLUMNS] for story in stories]
            others[f"{line.phase}/examples"] = self._wandb.Table(columns=list(STORY_COLUMNS), data=rows)
        self._run.log({**line.scalars, **others}, step=line.number)

    def finish(self) -> None:
        """Upload the rest."""
        self._run.finish()


class Trackio:
    """Trackio: a SQLite file on this machine, or a Space or server where TRACKIO_SPACE_ID or TRACKIO_SERVER_URL say."""

    def __init__(self, folder: Path, project: str, config: dict[str, Any]) -> None:
        import trackio

        self._trackio = trackio
        self._run = trackio.init(
            project=project,
            name=f"{folder.name}-{run_identity(folder)}",
            resume="allow",
            config=config,
            embed=False,
        )
        # Steps are the lines' numbers. That of the next one is in no public interface.
        self.have = max(0, self._run._next_step - 1)

    def log(self, line: Line, stories: Stories) -> None:
        """One step."""
        others: dict[str, Any] = {} if line.text is None else {f"{line.phase}/text": line.text}
        if stories:
            rows = [{column: story[column] for column in STORY_COLUMNS} for story in stories]
            others[f"{line.phase}/examples"] = self._trackio.Table(data=rows)
        self._run.log({**line.scalars, **others}, step=line.number)

    def finish(self) -> None:
        """Write the rest."""
        self._run.finish()


def open_tracker(name: str, folder: Path, project: str, config: dict[str, Any]) -> Tracker:
    """The tracker of that name, ready to be told lines.

    Raises:
        KeyError: there is no such tracker.
        ImportError: its package is not installed.
    """
    kinds: dict[str, type[TensorBoard] | type[Wandb] | type[Trackio]] = {
        "tensorboard": TensorBoard,
        "wandb": Wandb,
        "trackio": Trackio,
    }
    return kinds[name](folder, project, config)


def tracking_folder(folder: Path) -> Path:
    """Where trackers keep what is theirs."""
    return folder / "tracking"


def run_identity(folder: Path) -> str:
    """8 hexadecimal digits that are this run folder's alone, drawn when first asked for."""
    path = tracking_folder(folder) / "id"
    if not path.exists():
        write_atomically(path, secrets.token_hex(4) + "\n")
    return path.read_text(encoding="utf-8").strip()


def _points(total: float | None) -> str:
    return "no verdict" if total is None else f"{total:.2f} points"
