"""A corpus tokenised once: its blocks in files that are mapped into memory, in `tokens/<key>/` of the run folder.

The key is a hash of everything that the blocks follow from: documents, tokenizer, block length. They are written as
they are made, into a folder beside their place, synced, given a manifest with a SHA-256 a file, and renamed; a kill
leaves nothing that counts. Blocks that are not what their manifest says are made anew.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from services.student_trainer.dataset import Blocks, cut
from services.student_trainer.files import sha256, sync

FORMAT = 1
TOKENS, WORDS, MANIFEST = "tokens.i32", "words.i64", "manifest.json"


def cached_blocks(
    folder: Path,
    documents: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    block_tokens: int,
    beat: Callable[[], None] = lambda: None,
) -> Path:
    """Tokenise and cut as `make_blocks`, unless `folder` holds the very blocks already. Those of another corpus go.

    Args:
        beat: called now and then while it works.

    Returns:
        Where they are, for `open_blocks`.
    """
    place = folder / _key(documents, tokenizer, block_tokens)
    if not _is_whole(place):
        _write(place, documents, tokenizer, block_tokens, beat)
    for other in folder.iterdir():
        if other != place:
            shutil.rmtree(other)
    return place


def open_blocks(place: Path) -> Blocks:
    """Blocks that are read from the disk as they are used; writing to them changes nothing there."""
    manifest = json.loads((place / MANIFEST).read_text(encoding="utf-8"))
    size, block_tokens = manifest["blocks"], manifest["block_tokens"]
    if not size:  # nothing to map
        return Blocks(torch.zeros((0, block_tokens), dtype=torch.int32), torch.zeros(0, dtype=torch.int64))
    tokens = torch.from_file(str(place / TOKENS), shared=False, size=size * block_tokens, dtype=torch.int32)
    words_N = torch.from_file(str(place / WORDS), shared=False, size=size, dtype=torch.int64)
    return Blocks(tokens.view(size, block_tokens), words_N)


def _key(documents: Sequence[str], tokenizer: PreTrainedTokenizerBase, block_tokens: int) -> str:
    digest = hashlib.sha256(f"{FORMAT} {block_tokens} {tokenizer.eos_token_id} {len(documents)}\n".encode())
    digest.update(tokenizer.backend_tokenizer.to_str().encode())
    for document in documents:
        content = document.encode("utf-8", "surrogatepass")
        digest.update(f"\n{len(content)} ".encode())
        digest.update(content)
    return digest.hexdigest()[:24]


def _is_whole(place: Path) -> bool:
    try:
        hashes = json.loads((place / MANIFEST).read_text(encoding="utf-8"))["sha256"]
        return all(sha256(place / name) == hashes[name] for name in (TOKENS, WORDS))
    except (OSError, ValueError, KeyError):
        return False


def _write(
    place: Path,
    documents: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    block_tokens: int,
    beat: Callable[[], None],
) -> None:
    building = place.with_name(f".building-{place.name}")
    for leftover in (building, place):
        shutil.rmtree(leftover, ignore_errors=True)
    building.mkdir(parents=True)
    blocks = 0
    with (building / TOKENS).open("wb") as tokens, (building / WORDS).open("wb") as words:
        for tokens_NT, words_N in cut(documents, tokenizer, block_tokens):
            tokens.write(tokens_NT.tobytes())
            words.write(words_N.tobytes())
            blocks += len(words_N)
            beat()
    files = [building / TOKENS, building / WORDS]
    hashes = {path.name: sha256(path) for path in files}
    manifest = building / MANIFEST
    manifest.write_text(
        json.dumps({"blocks": blocks, "block_tokens": block_tokens, "sha256": hashes}), encoding="utf-8"
    )
    for path in (*files, manifest, building):
        sync(path)
    building.rename(place)
    sync(place.parent)
