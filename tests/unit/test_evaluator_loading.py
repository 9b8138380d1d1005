"""Loading checkpoints: which kind they are, in which precision, and what is said about those that cannot be used."""

import json
import re
import struct
from pathlib import Path

import pytest
import torch
from transformers import BertForMaskedLM, GPT2LMHeadModel

from services.evaluator.adapters.checkpoint import load_checkpoint
from services.evaluator.adapters.memory import free_bytes, weight_bytes
from services.evaluator.bench import make_engine
from services.evaluator.engine import LogProbabilityEngine
from services.evaluator.errors import CheckpointError
from services.evaluator.evaluation import evaluate_checkpoint
from services.evaluator.masked import MaskedEngine
from services.evaluator.request import EvaluationRequest
from services.evaluator.settings import EvaluatorSettings
from tests.evaluator_helpers import save_checkpoint, tiny_tokenizer
from tests.evaluator_models import tiny_bert


@pytest.fixture
def causal(tmp_path: Path) -> Path:
    return save_checkpoint(tmp_path / "causal")


@pytest.fixture
def masked(tmp_path: Path) -> Path:
    folder, tokenizer = tmp_path / "masked", tiny_tokenizer(add_bos=True)
    tokenizer.add_special_tokens({"mask_token": "<mask>"})
    tiny_bert(len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_the_checkpoint_says_how_it_is_scored(causal: Path, masked: Path) -> None:
    loaded = load_checkpoint(causal)
    assert (loaded.backend, type(loaded.model)) == ("causal", GPT2LMHeadModel)
    assert isinstance(make_engine(loaded, 64), LogProbabilityEngine)
    loaded = load_checkpoint(masked)
    assert (loaded.backend, type(loaded.model)) == ("mlm", BertForMaskedLM)
    assert isinstance(make_engine(loaded, 64), MaskedEngine)
    assert load_checkpoint(masked, backend="mntp").backend == "mntp"


def test_a_masked_model_writes_no_stories(masked: Path, tmp_path: Path) -> None:
    settings = EvaluatorSettings(suites=("storytelling",), teacher_url="http://127.0.0.1:9", torch_threads=1)
    (result,) = evaluate_checkpoint(EvaluationRequest.from_folder(masked, tmp_path / "out"), settings).suites
    assert result.status == "skipped"
    assert result.reason is not None
    assert "masked language model (mlm) writes no stories" in result.reason


def test_a_backend_that_the_model_is_not_made_for_is_refused(causal: Path) -> None:
    with pytest.raises(CheckpointError, match=f"{re.escape(str(causal))} cannot be loaded: .*GPT2Config"):
        load_checkpoint(causal, backend="mlm")


def test_half_the_memory_by_choice(causal: Path) -> None:
    assert load_checkpoint(causal).model.dtype == torch.float32
    assert load_checkpoint(causal, dtype="bfloat16").model.dtype == torch.bfloat16
    numbers = sum(p.numel() for p in load_checkpoint(causal).model.parameters())
    assert weight_bytes(causal, torch.float32) == 4 * numbers
    assert weight_bytes(causal, torch.bfloat16) == 2 * numbers


def test_weights_larger_than_the_memory_are_refused_before_they_are_read(causal: Path) -> None:
    free = free_bytes(torch.device("cpu"))
    if free is None:
        pytest.skip("this system does not say how much memory is free")
    columns = free // 4096  # twice what is free, once it is fp32
    header = json.dumps({"huge": {"dtype": "BF16", "shape": [2048, columns], "data_offsets": [0, 4096 * columns]}})
    with (causal / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header.encode())
        file.truncate(8 + len(header) + 4096 * columns)  # sparse: takes no room
    with pytest.raises(CheckpointError, match=r"the weights take [\d.]+ GiB as torch.float32 and cpu has [\d.]+ GiB"):
        load_checkpoint(causal)


def test_a_missing_or_damaged_tokenizer_is_named(causal: Path) -> None:
    whole = (causal / "tokenizer.json").read_text(encoding="utf-8")
    (causal / "tokenizer.json").write_text(whole[:1000], encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"the tokenizer cannot be loaded: .*; save it again"):
        load_checkpoint(causal)
    (causal / "tokenizer.json").unlink()
    with pytest.raises(
        CheckpointError, match=r"has no tokenizer\.json; save the tokenizer into the checkpoint's folder"
    ):
        load_checkpoint(causal)


@pytest.mark.parametrize("kept", [0, 4, 1000, -10])
def test_cut_weights_are_named(causal: Path, kept: int) -> None:
    weights = causal / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:kept])
    with pytest.raises(
        CheckpointError, match=r"model\.safetensors is cut short.*; save the checkpoint again or give another"
    ):
        load_checkpoint(causal)


@pytest.mark.parametrize("damage", ["not json", "no such model", "other vocabulary", "no weights"])
def test_a_config_that_does_not_fit_is_refused(causal: Path, damage: str) -> None:
    config = json.loads((causal / "config.json").read_text(encoding="utf-8"))
    if damage == "no such model":
        config["model_type"] = "unheard_of"
    elif damage == "other vocabulary":
        config["vocab_size"] += 7
    elif damage == "no weights":
        (causal / "model.safetensors").unlink()
    (causal / "config.json").write_text("{" if damage == "not json" else json.dumps(config), encoding="utf-8")
    with pytest.raises(CheckpointError, match=str(causal)):
        load_checkpoint(causal)


OWN_CODE = """
from transformers import GPT2LMHeadModel


class HomeMade(GPT2LMHeadModel):
    ours = True
"""


def test_code_that_a_checkpoint_brings_runs_only_where_it_is_trusted(causal: Path) -> None:
    config = json.loads((causal / "config.json").read_text(encoding="utf-8"))
    config["auto_map"] = {"AutoModelForCausalLM": "home_made.HomeMade"}
    (causal / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (causal / "home_made.py").write_text(OWN_CODE, encoding="utf-8")
    with pytest.raises(CheckpointError, match="FABULA_EVALUATOR_TRUST_REMOTE_CODE=true"):
        load_checkpoint(causal)
    assert getattr(load_checkpoint(causal, trust_remote_code=True).model, "ours", False)
