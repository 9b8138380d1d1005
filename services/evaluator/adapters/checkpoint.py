"""Loading a checkpoint folder with plain transformers."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.utils import logging

from services.evaluator.adapters.memory import free_bytes, weight_bytes
from services.evaluator.errors import CheckpointError

Backend = Literal["causal", "mlm", "mntp"]

_LOADING_ERRORS = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    RuntimeError,
    SafetensorError,
)  # as the library raises them
_TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "vocab.txt", "tokenizer.model", "spiece.model", "merges.txt")


@dataclass(frozen=True, slots=True)
class LoadedCheckpoint:
    """A language model in evaluation mode, its tokenizer, and how texts are scored with it."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    backend: Backend = "causal"


def load_checkpoint(
    path: Path,
    device: str = "auto",
    *,
    backend: Backend | Literal["auto"] = "auto",
    dtype: str = "float32",
    trust_remote_code: bool = False,
) -> LoadedCheckpoint:
    """Load `path` from this disk alone.

    Args:
        path: Folder that `AutoModelForCausalLM.from_pretrained` or `AutoModelForMaskedLM.from_pretrained` loads.
        device: `cpu`, `cuda`, or `auto` for CUDA where there is one.
        backend: As the BabyLM 2025 pipeline names them; `auto`: `mlm` where the checkpoint was saved as a masked model.
        dtype: `float32` or `bfloat16`.
        trust_remote_code: Run the Python files that the folder brings for its model.

    Raises:
        CheckpointError: something is missing, damaged, or does not fit together or in memory.
    """
    if not (path / "config.json").is_file():
        raise CheckpointError(f"{path} has no config.json; give the folder of a checkpoint saved by transformers")
    config = _read_config(path)
    if "auto_map" in config and not trust_remote_code:
        raise CheckpointError(
            f"{path} brings Python code of its own for its model; where you trust it, set "
            "FABULA_EVALUATOR_TRUST_REMOTE_CODE=true"
        )
    target = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    with quiet():
        tokenizer = _load_tokenizer(path, trust_remote_code)
        found, model = _load_model(path, target, backend, getattr(torch, dtype), trust_remote_code)
    embeddings: Any = model.get_input_embeddings()
    rows = embeddings.weight.shape[0]
    if len(tokenizer) > rows:
        raise CheckpointError(
            f"{path}: the tokenizer has {len(tokenizer)} tokens and the model {rows} embeddings; they do not belong "
            "together: save both from one run"
        )
    broken = [name for name, weight in model.named_parameters() if not bool(torch.isfinite(weight).all())]
    if broken:
        raise CheckpointError(f"{path}: {broken[0]} holds NaN or infinity (training diverged); take an earlier one")
    model.eval()
    return LoadedCheckpoint(model, tokenizer, found)


@contextmanager
def quiet() -> Iterator[None]:
    """transformers loads without bars and remarks: a service has no terminal, and what matters is checked here."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def _load_tokenizer(path: Path, trust: bool) -> PreTrainedTokenizerBase:
    if not any((path / name).is_file() for name in _TOKENIZER_FILES):
        raise CheckpointError(f"{path} has no tokenizer.json; save the tokenizer into the checkpoint's folder")
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            os.fspath(path), local_files_only=True, trust_remote_code=trust
        )
    except Exception as error:  # that very type is what the tokenizers library raises
        raise CheckpointError(f"{path}: the tokenizer cannot be loaded: {error}; save it again") from error
    if not tokenizer.is_fast:
        raise CheckpointError(f"{path}: the tokenizer gives no character offsets; save it with a tokenizer.json")
    return tokenizer


def _load_model(
    path: Path, target: torch.device, backend: Backend | Literal["auto"], dtype: torch.dtype, trust: bool
) -> tuple[Backend, PreTrainedModel]:
    try:
        needed, free = weight_bytes(path, dtype), free_bytes(target)
        if free is not None and needed > free:
            raise CheckpointError(
                f"{path}: the weights take {_gigabytes(needed)} as {dtype} and {target} has {_gigabytes(free)} free; "
                "free some, set dtype to bfloat16 or take a larger machine"
            )
        config = AutoConfig.from_pretrained(os.fspath(path), local_files_only=True, trust_remote_code=trust)
        found = _backend(config.architectures or []) if backend == "auto" else backend
        kind: Any = AutoModelForCausalLM if found == "causal" else AutoModelForMaskedLM
        model, report = kind.from_pretrained(
            os.fspath(path),
            config=config,
            dtype=dtype,
            local_files_only=True,
            output_loading_info=True,
            trust_remote_code=trust,
        )
        model = model.to(target)
    except torch.OutOfMemoryError as error:
        raise CheckpointError(
            f"{path} does not fit into the memory of {target}: {error}; set dtype to bfloat16 or device to cpu"
        ) from error
    except _LOADING_ERRORS as error:
        raise CheckpointError(f"{path} cannot be loaded: {error}; save the checkpoint again or give another") from error
    lost = sorted(report["missing_keys"])
    if lost:
        raise CheckpointError(
            f"{path} has no weights for {lost[:3]} ({len(lost)} in all) of {type(model).__name__}; save the checkpoint "
            f"again, or set backend (it is {found}) to what the model was trained as"
        )
    return found, model


def _backend(architectures: list[str]) -> Backend:
    return "mlm" if any(name.endswith("ForMaskedLM") for name in architectures) else "causal"


def _read_config(path: Path) -> dict[str, Any]:
    """The model's configuration, of an architecture that is known here."""
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} cannot be loaded: config.json is no JSON ({error}); save the checkpoint again"
        ) from error
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind not in CONFIG_MAPPING and "auto_map" not in (config or {}):
        raise CheckpointError(
            f"{path} cannot be loaded: model_type is {kind!r}, which transformers {transformers.__version__} does not "
            "know; install the version that the model needs"
        )
    return dict(config)


def _gigabytes(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
