"""Load a causal language model and its tokenizer, from the hub or a folder, or say plainly why not."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from huggingface_hub import resolve_revision
from huggingface_hub.errors import HfHubHTTPError, RevisionResolutionError
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils.logging import disable_progress_bar

from services.teacher.judges.base import JudgeUnavailableError

WEIGHTS = (".safetensors", ".bin")
WHOLE_FILE_BYTES = 64 * 1024 * 1024
SAMPLES = 64
SAMPLE_BYTES = 64 * 1024
LOADING_ERRORS = (
    *(OSError, ValueError, KeyError, ImportError, RuntimeError),
    *(HfHubHTTPError, RevisionResolutionError, SafetensorError),
)
_ONE_AT_A_TIME = Lock()  # transformers changes torch for the whole process while it builds a model


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to be asked, its tokenizer, and what tells it from any other."""

    model: Any
    tokenizer: Any
    name: str
    revision: str

    @property
    def context(self) -> int:
        """Tokens that the model can look back on; as good as unlimited where its configuration names no limit."""
        text = self.model.config.get_text_config()
        limits = [getattr(text, "max_position_embeddings", None)]
        if getattr(text, "use_sliding_window", True):
            limits.append(getattr(text, "sliding_window", None))
        return min((int(limit) for limit in limits if limit), default=2**31)


def load_tokenizer(source: str, *, revision: str | None) -> Any:
    """The tokenizer of `source`, a folder or a name on the Hugging Face hub: quick, where the weights may take minutes.

    Raises:
        JudgeUnavailableError: it is absent, gated, broken, or without a chat template.
    """
    folder = _expanded(source)
    if _looks_like_a_path(folder) and not (Path(folder) / "config.json").is_file():
        raise JudgeUnavailableError(
            f"model folder {source!r} has no config.json; give a folder written by save_pretrained, or a hub name"
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, revision=revision)
    except LOADING_ERRORS as error:
        raise JudgeUnavailableError(_why(source, error)) from error
    if not tokenizer.chat_template:
        raise JudgeUnavailableError(
            f"model {source!r} has no chat template, so it is no instruct model; take its instruct version, or put "
            "a chat_template.jinja beside its tokenizer"
        )
    return tokenizer


def load_model(source: str, tokenizer: Any, *, revision: str | None, device: str, dtype: str) -> LoadedModel:
    """Load the weights of `source` and put them beside its tokenizer.

    Raises:
        JudgeUnavailableError: they are absent, gated or broken, or do not fit the device.
    """
    place = pick_device(device)
    number = pick_dtype(dtype, place)
    folder = _expanded(source)
    disable_progress_bar()  # a service's log is no terminal
    try:
        with _ONE_AT_A_TIME:
            model: Any = AutoModelForCausalLM.from_pretrained(folder, revision=revision, dtype=number)
        model = model.to(place).eval()
        if (path := Path(folder)).is_dir():
            return LoadedModel(model, tokenizer, path.resolve().name, f"sha256:{folder_hash(path)}")
        # As the cache noted it when the weights were looked up; the configuration does not say it any more.
        commit = resolve_revision(source, revision=revision, local_files_only=True).resolved
        return LoadedModel(model, tokenizer, source, commit)
    except torch.OutOfMemoryError as error:
        raise JudgeUnavailableError(
            f"model {source!r} does not fit on {place} ({error}); take a smaller one"
        ) from error
    except LOADING_ERRORS as error:
        raise JudgeUnavailableError(_why(source, error)) from error


def pick_device(device: str) -> torch.device:
    """The device to use; `auto` is the first GPU, else the CPU.

    Raises:
        JudgeUnavailableError: there is no such device here.
    """
    if device == "auto":
        return torch.device(
            "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        )
    try:
        place = torch.device(device)
        torch.empty(1, device=place)
    except (RuntimeError, AssertionError) as error:
        why = str(error).splitlines()[0]
        raise JudgeUnavailableError(f"device {device!r} is not usable here ({why}); set FABULA_DEVICE=auto") from error
    return place


def pick_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """The number format; `auto` is bfloat16 on a GPU and float32 on a CPU."""
    if dtype == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    chosen: torch.dtype = getattr(torch, dtype)
    return chosen


def folder_hash(folder: Path) -> str:
    """16 hexadecimal digits over a model folder: every JSON and template file, and the weights.

    A weights file beyond 64 MiB is sampled (its size, its ends and 64 blocks spread over it), since reading tens of
    gigabytes would delay the start by minutes. Training moves every block; an edit of one number may go unseen.
    """
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.iterdir() if p.is_file()):
        if path.suffix in (".json", ".jinja", ".model", ".txt", *WEIGHTS):
            size = path.stat().st_size
            digest.update(f"{path.name}:{size}\n".encode())
            with path.open("rb") as file:
                if size <= WHOLE_FILE_BYTES:
                    digest.update(file.read())
                    continue
                for i in range(SAMPLES + 1):
                    file.seek((size - SAMPLE_BYTES) * i // SAMPLES)
                    digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()[:16]


def _expanded(source: str) -> str:
    return str(Path(source).expanduser()) if source.startswith("~") else source


def _looks_like_a_path(source: str) -> bool:
    return source.startswith(("/", "./", "../")) or Path(source).exists() or source.count("/") > 1


def _why(source: str, error: BaseException) -> str:
    text = " ".join(str(error).split())[:400]
    if "gated" in text.lower() or "401" in text or "403" in text:
        cure = f"accept its licence at https://huggingface.co/{source} and set HF_TOKEN"
    elif Path(source).is_dir():
        cure = "write the folder again with save_pretrained, model and tokenizer both"
    elif isinstance(error, OSError):
        cure = "check the name and the connection (HF_HUB_OFFLINE?), or give the folder of a downloaded copy"
    else:
        cure = "take a model that this version of transformers supports"
    return f"model {source!r} cannot be loaded: {cure} ({type(error).__name__}: {text})"
