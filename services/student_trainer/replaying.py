"""Training again from what a run recorded: its stories and verdicts, without a teacher."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from fabula_proto import StepMetrics
from fabula_proto.allocator import keep_freed_memory
from services.student_trainer import checkpoints, config
from services.student_trainer.files import write_atomically
from services.student_trainer.folder_lock import TRAINER_LOCK, FolderLock
from services.student_trainer.interaction import StopRequestedError, Watcher, interact
from services.student_trainer.recorded_verdicts import RecordedVerdicts, ReplayError
from services.student_trainer.records import StoryRow
from services.student_trainer.run_folder import RunFolder
from services.student_trainer.settings import RunSettings


@dataclass(frozen=True)
class SameWeights:
    """A checkpoint that recorded and replayed run both have, and whether their weights are the same bytes."""

    checkpoint: str
    same: bool


@dataclass(frozen=True)
class Replay:
    """What a replay came to.

    `differs_at`: the first update whose stories' KL or reward is not the recorded one to the bit. Where a replay that
    was stopped goes on, the updates before that are not looked at again.
    """

    updates: int
    stories: int
    differs_at: int | None
    weights: tuple[SameWeights, ...]


def replay(
    recorded: RunFolder, to: RunFolder, on_step: Callable[[StepMetrics, list[StoryRow]], None], stop: Callable[[], bool]
) -> Replay:
    """Do the recorded updates again, in `to`, from the checkpoint that the run's interaction started from.

    A replay that was stopped goes on where it was. `to` becomes a run folder like any other.

    Raises:
        ReplayError: there is nothing to replay, the record has a gap, or a story comes out differently.
        StopRequestedError: `stop()` said so; the state is saved.
        CheckpointError: the start is missing or damaged.
        ConfigError: run.yaml cannot be read.
        CorpusError: `interact.mixed` reads a corpus that is no longer there.
        FolderInUseError: somebody trains in `to`.
        OSError: `to` cannot be written.
    """
    settings, start = _settings_and_start(recorded)
    written = config.dump(settings, to.run)
    _check_place(recorded, to, written)
    to.path.mkdir(parents=True, exist_ok=True)
    with FolderLock(to.path):
        _check_place(recorded, to, written)  # another replay may have come first
        if not to.config.exists():
            write_atomically(to.config, written)
        return _train(recorded, to, settings, start, on_step, stop)


def _train(
    recorded: RunFolder,
    to: RunFolder,
    settings: RunSettings,
    start: Path,
    on_step: Callable[[StepMetrics, list[StoryRow]], None],
    stop: Callable[[], bool],
) -> Replay:
    keep_freed_memory()
    queue = RecordedVerdicts(recorded.stories)
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    differs: list[int] = []

    def followed(metrics: StepMetrics, rows: list[StoryRow]) -> None:
        known = [queue.row(row.story.id) for row in rows]
        if [(_float32(row.kl), row.reward) for row in rows] != [(_float32(was["kl"]), was["reward"]) for was in known]:
            differs.append(metrics.step)
        on_step(metrics, rows)

    try:
        interact(to, settings, start, queue, Watcher(followed, lambda _: None, stop))
    except StopRequestedError:
        if not queue.at_end:
            raise
    return Replay(
        updates=queue.steps,
        stories=queue.stories,
        differs_at=min(differs, default=None),
        weights=tuple(_same_weights(recorded, to)),
    )


def _settings_and_start(recorded: RunFolder) -> tuple[RunSettings, Path]:
    """The settings of the replay, and the checkpoint that it starts from."""
    known = config.load(recorded.config)
    start = known.interact.start or checkpoints.pretrain_name(known.pretrain.word_budget)
    places = [path for path in (recorded.checkpoints / start, Path(start)) if checkpoints.is_complete(path)]
    if not places:
        raise checkpoints.CheckpointError(
            f"the checkpoint {start!r} that {recorded.run} started from is not in {recorded.checkpoints}; restore it"
        )
    interaction = known.interact.model_copy(
        update={"start": str(places[0].resolve()), "guards": known.interact.guards.for_replay()}
    )
    return known.model_copy(update={"interact": interaction}), places[0]


def _check_place(recorded: RunFolder, to: RunFolder, written: str) -> None:
    """Refuse a folder that holds anything but this replay, whose run.yaml is `written`, or nothing."""
    if to.config.exists():
        ours = to.config.read_text(encoding="utf-8") == written
    else:
        ours = not to.path.exists() or all(path.name == TRAINER_LOCK for path in to.path.iterdir())
    if not ours:
        raise ReplayError(f"{to.path} holds something else than a replay of {recorded.run}; choose another place")


def _float32(value: float) -> float:
    """As the table of stories holds it."""
    return float(np.float32(value))


def _same_weights(recorded: RunFolder, to: RunFolder) -> Iterator[SameWeights]:
    """Each state that both runs have saved."""
    for here, there in ((to.checkpoints, recorded.checkpoints), (to.interact_resume, recorded.interact_resume)):
        for path in sorted(here.glob("*")):
            if checkpoints.is_complete(path) and checkpoints.is_complete(there / path.name):
                yield SameWeights(path.name, _weights(path) == _weights(there / path.name))


def _weights(folder: Path) -> dict[str, str]:
    """SHA-256 of each file of weights, from the manifest."""
    manifest = json.loads((folder / checkpoints.MANIFEST).read_text(encoding="utf-8"))
    return {name: digest for name, digest in manifest["sha256"].items() if name.endswith(".safetensors")}
