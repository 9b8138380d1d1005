"""The documents that a checkpoint was trained on, read one at a time.

They are in the files that its run.yaml names. A corpus that is in no file here, such as the story grammar or one from
the Hub, is in the run folder as the trainer tokenised it: `tokens/<key>/tokens.i32` holds the training documents' token
ids as 32-bit integers, an end token after each, the last one perhaps cut; `manifest.json` beside it says its SHA-256.
"""

import gzip
import hashlib
import json
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerBase

from services.evaluator.errors import MissingDataError

_TEXT = (".txt", ".train")
_JSON = (".jsonl", ".jsonl.gz")
_TOKENS, _MANIFEST = "tokens.i32", "manifest.json"
_HELD_OUT = ("validation", "valid", "val", "dev", "test")


def training_documents(source: str | None, text_field: str) -> Iterator[str]:
    """Documents of a corpus file, or of all in a folder: JSON rows that say no held-out `split`, or plain text.

    A share of rows without a split may have been held out by the trainer's draw; they are read too.

    Raises:
        MissingDataError: there are no files to read, or one of them cannot be read.
    """
    if source is None:
        raise MissingDataError("the checkpoint is of no run, or its run names no corpus")
    path = Path(source).expanduser()
    if not path.exists():
        raise MissingDataError(f"the run's corpus {source} is no file or folder here")
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if _is_corpus(p.relative_to(path)))
    files = [file for file in files if file.name.endswith((*_TEXT, *_JSON))]
    if not files:
        raise MissingDataError(f"the run's corpus {source} holds no file that ends in {', '.join((*_TEXT, *_JSON))}")
    for file in files:
        try:
            yield from _rows(file, text_field) if file.name.endswith(_JSON) else _paragraphs(file)
        except (OSError, EOFError, zlib.error, ValueError) as error:
            raise MissingDataError(f"the run's corpus file {file} cannot be read: {error}") from error


def tokenised_documents(run_folder: Path | None, tokenizer: PreTrainedTokenizerBase) -> Iterator[str]:
    """Training documents as a run's trainer tokenised them, decoded as the checkpoint's stories are.

    Raises:
        MissingDataError: there are none, they are damaged, or another tokenizer made them.
    """
    found = sorted(run_folder.glob(f"tokens/[!.]*/{_MANIFEST}")) if run_folder is not None else []
    if len(found) != 1:
        raise MissingDataError(f"the run folder holds {len(found)} tokenised corpora; expected one")
    file = found[0].with_name(_TOKENS)
    try:
        with file.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
        if digest != json.loads(found[0].read_text(encoding="utf-8"))["sha256"][_TOKENS]:
            raise ValueError("it is not what its manifest says")
        tokens_N = np.memmap(file, dtype=np.int32, mode="r")  # refuses an empty file
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MissingDataError(f"the tokenised corpus {file} cannot be read: {error}") from error
    start = 0
    for end in [*np.flatnonzero(tokens_N == tokenizer.eos_token_id).tolist(), len(tokens_N)]:
        ids = tokens_N[start:end].tolist()
        text = str(tokenizer.decode(ids))
        if start == 0 and _ids(text, tokenizer) != ids:
            raise MissingDataError(f"another tokenizer than the checkpoint's made {file}")
        yield text
        start = end + 1


def _ids(text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """As the trainer makes them."""
    ids: list[int] = tokenizer(text, add_special_tokens=False, split_special_tokens=True, verbose=False)["input_ids"]
    return ids


def _is_corpus(relative: Path) -> bool:
    return not any(part.startswith(".") for part in relative.parts)


def _rows(file: Path, text_field: str) -> Iterator[str]:
    with gzip.open(file, "rt", encoding="utf-8") if file.suffix == ".gz" else file.open(encoding="utf-8") as opened:
        for line in opened:
            row = json.loads(line) if line.strip() else {}
            text = row.get(text_field) if isinstance(row, dict) and row.get("split") not in _HELD_OUT else None
            if isinstance(text, str):
                yield text


def _paragraphs(file: Path) -> Iterator[str]:
    """What blank lines separate, or each line where there are none. Never more than one document in memory."""
    with file.open(encoding="utf-8") as opened:
        blank = _has_blank_between(opened)
        opened.seek(0)
        lines: list[str] = []
        for line in opened:
            if line.strip():
                lines.append(line)
            if lines and not (blank and line.strip()):
                yield "".join(lines)
                lines.clear()
        if lines:
            yield "".join(lines)


def _has_blank_between(lines: Iterable[str]) -> bool:
    after_gap = text_seen = False
    for line in lines:
        if line.strip() and after_gap:
            return True
        text_seen = text_seen or bool(line.strip())
        after_gap = text_seen and not line.strip()
    return False
