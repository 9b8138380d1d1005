"""Loading a checkpoint folder with plain transformers."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.logging import disable_progress_bar

from services.evaluator.errors import CheckpointError


@dataclass(frozen=True, slots=True)
class LoadedCheckpoint:
    """A causal language model in fp32 and evaluation mode, and its tokenizer."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


def load_checkpoint(path: Path, device: str = "auto") -> LoadedCheckpoint:
    """Load `path` from this disk alone.

    Args:
        path: Folder that `AutoModelForCausalLM.from_pretrained` loads.
        device: `cpu`, `cuda`, or `auto` for CUDA where there is one.

    Raises:
        CheckpointError: something is missing, damaged, or does not fit together or in memory.
    """
    if not (path / "config.json").is_file():
        raise CheckpointError(f"{path} has no config.json; give the folder of a checkpoint saved by transformers")
    disable_progress_bar()  # weights load in less time than a bar takes to draw, and a service has no terminal
    target = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    try:
        tokenizer = AutoTokenizer.from_pretrained(os.fspath(path), local_files_only=True)
        loaded: Any = AutoModelForCausalLM.from_pretrained(  # a pair, which the library's own types do not say
            os.fspath(path), dtype=torch.float32, local_files_only=True, output_loading_info=True
        )
        model, report = loaded
        model = model.to(target)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be loaded: {error}; save the checkpoint again or give another") from error
    lost = sorted(report["missing_keys"])
    if lost:
        raise CheckpointError(f"{path} has no weights for {lost[:3]} ({len(lost)} in all); save the checkpoint again")
    broken = [name for name, weight in model.named_parameters() if not bool(torch.isfinite(weight).all())]
    if broken:
        raise CheckpointError(f"{path}: {broken[0]} holds NaN or infinity (training diverged); take an earlier one")
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise CheckpointError(
            f"{path}: the tokenizer has {len(tokenizer)} tokens and the model {rows} embeddings; they do not belong "
            "together: save both from one run"
        )
    if not tokenizer.is_fast:
        raise CheckpointError(f"{path}: the tokenizer gives no character offsets; save it with a tokenizer.json")
    model.eval()
    return LoadedCheckpoint(model, tokenizer)
