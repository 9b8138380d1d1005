"""A fresh base model of a checkpoint, to be changed by fine-tuning."""

import os
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from services.evaluator.adapters.checkpoint import quiet
from services.evaluator.errors import CheckpointError


def load_encoder(
    path: Path, device: torch.device, trust_remote_code: bool = False
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model without its language-modelling head, in fp32, and its tokenizer.

    For checkpoints that `load_checkpoint` has looked at. What the base model has beside (BERT's pooler) is drawn at
    random from the process's random state, as transformers does.

    Raises:
        CheckpointError: it cannot be loaded a second time, most likely because it does not fit in memory.
    """
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(
                os.fspath(path), local_files_only=True, trust_remote_code=trust_remote_code
            )
            model: PreTrainedModel = AutoModel.from_pretrained(
                os.fspath(path), dtype=torch.float32, local_files_only=True, trust_remote_code=trust_remote_code
            )
            return model.to(device), tokenizer  # type: ignore[arg-type]
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(
            f"{path} cannot be loaded for fine-tuning: {error}; free memory or take another machine"
        ) from error
