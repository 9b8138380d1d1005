"""Where an unfinished pretraining goes on: the resume point on disk, and metrics.jsonl taken back to it."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from services.student_trainer import checkpoints
from services.student_trainer.student import load_student


@dataclass
class Progress:
    """How far a pretraining is. There is no random state in it: every draw is a function of the seed and the step.

    Attributes:
        step: optimiser steps taken.
        loss_sum: sum of the steps' losses since the last line of metrics, nats.
        loss_steps: how many steps that is.
        interval_s: time spent in them.
        metrics_bytes: size of metrics.jsonl.
    """

    step: int = 0
    loss_sum: float = 0.0
    loss_steps: int = 0
    interval_s: float = 0.0
    metrics_bytes: int = 0


def resume_folder(run_dir: Path) -> Path:
    """Resume points, one folder a step; the newest complete one counts, and older ones go when it is safe on disk."""
    return run_dir / "resume" / "pretrain"


def save_resume_point(
    run_dir: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    optimizer_state: Mapping[str, Any],
    progress: Progress,
) -> None:
    """Save everything that going on needs, then drop the older points. A kill at any moment leaves a whole one."""
    target = resume_folder(run_dir) / f"{progress.step:08d}"
    if not checkpoints.is_complete(target):
        state = {"progress": asdict(progress), "optimizer": dict(optimizer_state)}
        checkpoints.save(target, model, tokenizer, state, {"stage": "pretrain", "step": progress.step})
    for other in resume_folder(run_dir).iterdir():
        if other != target:
            shutil.rmtree(other)


def load_resume_point(run_dir: Path) -> tuple[PreTrainedModel, dict[str, Any], Progress] | None:
    """Model, optimiser state and progress of the newest resume point; none where there is none.

    Raises:
        CheckpointError: it is damaged.
    """
    folder = resume_folder(run_dir)
    points = [p for p in folder.iterdir() if checkpoints.is_complete(p)] if folder.is_dir() else []
    points = [p for p in points if not p.name.startswith(".")]
    if not points:
        return None
    newest = max(points, key=lambda p: int(p.name))
    state = checkpoints.load_state(newest)
    return load_student(newest), state["optimizer"], Progress(**state["progress"])


def drop_resume_points(run_dir: Path) -> None:
    """Forget them: the pretraining is finished."""
    shutil.rmtree(resume_folder(run_dir), ignore_errors=True)


def append_line(path: Path, line: str) -> int:
    """Append a line to metrics.jsonl, through to the disk; the file's new size in bytes."""
    with path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")
        file.flush()
        os.fsync(file.fileno())
        return file.tell()


def take_back(path: Path, size: int) -> None:
    """Cut metrics.jsonl back to `size` bytes: what a lost stretch of steps wrote will be written again."""
    if path.exists() and path.stat().st_size > size:
        os.truncate(path, size)
