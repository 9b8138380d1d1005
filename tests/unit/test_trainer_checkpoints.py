"""Checkpoints are complete or absent, and damage is found."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from services.student_trainer import checkpoints
from services.student_trainer.checkpoints import CheckpointError
from services.student_trainer.settings import StudentSettings
from services.student_trainer.student import build_student
from tests.trainer_helpers import tiny_tokenizer


def tokenizer_end() -> int:
    return int(tiny_tokenizer().eos_token_id)


def save(folder: Path, seed: int = 1) -> Path:
    tokenizer = tiny_tokenizer()
    model = build_student(StudentSettings(layers=1, heads=1, width=8, context=32), tokenizer, seed)
    return checkpoints.save(folder, model, tokenizer, {"step": 3, "tensor": torch.arange(3)}, {"words": 5})


@pytest.mark.parametrize(
    ("words", "label"), [(90_000_000, "90M"), (1_500_000, "1500k"), (100_000, "100k"), (950, "950"), (1_234, "1234")]
)
def test_names(words: int, label: str) -> None:
    assert checkpoints.pretrain_name(words) == f"chck_{label}"
    assert checkpoints.interact_name("chck_90M", words) == f"chck_90M_rl_{label}"


def test_save_and_load(tmp_path: Path) -> None:
    folder = save(tmp_path / "chck_1k")
    checkpoints.verify(folder)
    assert checkpoints.facts(folder) == {"words": 5}
    state = checkpoints.load_state(folder)
    assert state["step"] == 3
    assert torch.equal(state["tensor"], torch.arange(3))
    assert [p.name for p in tmp_path.iterdir()] == ["chck_1k"]
    AutoModelForCausalLM.from_pretrained(folder)
    assert AutoTokenizer.from_pretrained(folder).eos_token_id == tokenizer_end()


def test_saving_again_replaces(tmp_path: Path) -> None:
    save(tmp_path / "chck_1k", seed=1)
    first = (tmp_path / "chck_1k" / "model.safetensors").read_bytes()
    save(tmp_path / "chck_1k", seed=2)
    checkpoints.verify(tmp_path / "chck_1k")
    assert (tmp_path / "chck_1k" / "model.safetensors").read_bytes() != first
    assert [p.name for p in tmp_path.iterdir()] == ["chck_1k"]


def test_what_a_kill_left_behind_is_no_checkpoint(tmp_path: Path) -> None:
    leftover = tmp_path / ".building-chck_1k"
    leftover.mkdir()
    (leftover / "half").write_text("written")
    folder = save(tmp_path / "chck_1k")
    assert not (folder / "half").exists()
    (folder / checkpoints.MANIFEST).unlink()
    assert not checkpoints.is_complete(folder)
    with pytest.raises(CheckpointError, match="never finished"):
        checkpoints.verify(folder)


def test_damage_is_found(tmp_path: Path) -> None:
    folder = save(tmp_path / "chck_1k")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(CheckpointError, match=r"model\.safetensors has SHA-256"):
        checkpoints.load_state(folder)
    weights.unlink()
    with pytest.raises(CheckpointError, match=r"lacks model\.safetensors"):
        checkpoints.verify(folder)
