"""Checkpoints: Hugging Face folders, complete or absent.

A checkpoint is written into a temporary folder beside its place, synced, given a manifest with a SHA-256 a file as the
last thing, and renamed. A folder without a manifest is therefore never a checkpoint. What the trainer needs to go on
(optimiser, value head, controller, cursor) lies beside the model in `trainer_state/`, out of `from_pretrained`'s way.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from services.student_trainer.files import sha256, sync
from services.student_trainer.tokenizer import save_tokenizer

MANIFEST = "manifest.json"
STATE = "trainer_state"


class CheckpointError(RuntimeError):
    """A checkpoint is missing, incomplete or damaged; the message names the folder and the cure."""


def words_label(words: int) -> str:
    """Words as BabyLM writes them: 90_000_000 -> `90M`, 100_000 -> `100k`, 1_500_000 -> `1500k`, 950 -> `950`."""
    for unit, suffix in ((1_000_000, "M"), (1_000, "k")):
        if words >= unit and words % unit == 0:
            return f"{words // unit}{suffix}"
    return str(words)


def pretrain_name(words: int) -> str:
    """Name of a pretraining milestone, `chck_90M`."""
    return f"chck_{words_label(words)}"


def interact_name(start: str, words: int) -> str:
    """Name of an interaction milestone after the checkpoint it started from, `chck_90M_rl_100k`."""
    return f"{start}_rl_{words_label(words)}"


def is_complete(folder: Path) -> bool:
    """Whether the folder is a finished checkpoint (its manifest is there; `verify` reads every byte)."""
    return (folder / MANIFEST).is_file()


def verify(folder: Path) -> None:
    """Compare every file with the manifest.

    Raises:
        CheckpointError: the manifest is missing, or a file is missing or changed.
    """
    if not is_complete(folder):
        raise CheckpointError(f"{folder} has no {MANIFEST}; it was never finished. Delete it and start again.")
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    for name, expected in manifest["sha256"].items():
        path = folder / name
        if not path.is_file():
            raise CheckpointError(
                f"{folder} lacks {name}, which its manifest lists; restore it or delete the checkpoint"
            )
        if (found := sha256(path)) != expected:
            message = f"{path} has SHA-256 {found[:12]}, the manifest says {expected[:12]}; delete the checkpoint"
            raise CheckpointError(message)


def save(
    folder: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    state: Mapping[str, Any],
    facts: Mapping[str, Any],
) -> Path:
    """Write model, tokenizer and trainer state into `folder`, all or nothing. An older one there is replaced.

    Args:
        state: what `torch.load(weights_only=True)` can read back: tensors, numbers, strings, lists, dicts.
        facts: JSON values kept in the manifest (words seen, step, the run's name, ...).
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    building = folder.with_name(f".building-{folder.name}")
    shutil.rmtree(building, ignore_errors=True)
    model.save_pretrained(building)
    save_tokenizer(tokenizer, building)
    (building / STATE).mkdir()
    torch.save(dict(state), building / STATE / "state.pt")
    files = sorted(p for p in building.rglob("*") if p.is_file())
    for path in files:
        sync(path)
    hashes = {p.relative_to(building).as_posix(): sha256(p) for p in files}
    manifest = building / MANIFEST
    manifest.write_text(json.dumps({**facts, "sha256": hashes}, indent=2) + "\n", encoding="utf-8")
    sync(manifest)
    sync(building)
    if folder.exists():
        retired = folder.with_name(f".retired-{folder.name}")
        shutil.rmtree(retired, ignore_errors=True)
        folder.rename(retired)
        building.rename(folder)
        shutil.rmtree(retired)
    else:
        building.rename(folder)
    sync(folder.parent)
    return folder


def load_state(folder: Path) -> dict[str, Any]:
    """The trainer state of a finished checkpoint, on the CPU.

    Raises:
        CheckpointError: the checkpoint is incomplete or damaged.
    """
    verify(folder)
    state: dict[str, Any] = torch.load(folder / STATE / "state.pt", map_location="cpu", weights_only=True)
    return state


def facts(folder: Path) -> dict[str, Any]:
    """What the manifest says besides the hashes.

    Raises:
        CheckpointError: the checkpoint is incomplete.
    """
    if not is_complete(folder):
        raise CheckpointError(f"{folder} has no {MANIFEST}; it was never finished. Delete it and start again.")
    manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    manifest.pop("sha256")
    return manifest
