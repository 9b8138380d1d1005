"""A corpus tokenised once: the same blocks, no second time, and nothing half-written that counts."""

import json
from pathlib import Path

import pytest
import torch

from services.student_trainer import dataset
from services.student_trainer.dataset import make_blocks
from services.student_trainer.grammar import generate_documents
from services.student_trainer.settings import TokenizerSettings
from services.student_trainer.token_cache import MANIFEST, TOKENS, cached_blocks, open_blocks
from services.student_trainer.tokenizer import train_tokenizer

DOCUMENTS = [document.text for document in generate_documents(3_000, seed=1)]
TOKENIZER = train_tokenizer(DOCUMENTS, TokenizerSettings(vocab_size=500))


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it, nothing is tidied up."""


@pytest.fixture(autouse=True)
def _few_documents_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "DOCUMENTS_A_CALL", 5)


def beats(folder: Path, documents: list[str] = DOCUMENTS, block_tokens: int = 32) -> int:
    """How many pieces were tokenised."""
    count = 0

    def beat() -> None:
        nonlocal count
        count += 1

    cached_blocks(folder, documents, TOKENIZER, block_tokens, beat)
    return count


def test_mapped_blocks_are_those_made_in_memory(tmp_path: Path) -> None:
    blocks = open_blocks(cached_blocks(tmp_path / "tokens", DOCUMENTS, TOKENIZER, 32))
    expected = make_blocks(DOCUMENTS, TOKENIZER, 32)
    assert len(expected) > 50
    assert torch.equal(blocks.tokens_NT, expected.tokens_NT)
    assert torch.equal(blocks.words_N, expected.words_N)
    assert (blocks.tokens_NT.dtype, blocks.words_N.dtype) == (torch.int32, torch.int64)


def test_pieces_of_any_size_give_the_same_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    small = make_blocks(DOCUMENTS, TOKENIZER, 32)
    monkeypatch.setattr(dataset, "DOCUMENTS_A_CALL", 10_000)
    whole = make_blocks(DOCUMENTS, TOKENIZER, 32)
    assert torch.equal(small.tokens_NT, whole.tokens_NT)
    assert torch.equal(small.words_N, whole.words_N)


def test_the_first_blocks_alone_need_no_more_text() -> None:
    whole = make_blocks(DOCUMENTS, TOKENIZER, 32)
    some = make_blocks([*DOCUMENTS[:20], None], TOKENIZER, 32, at_most=3)  # type: ignore[list-item]  # None cannot be read
    assert torch.equal(some.tokens_NT, whole.tokens_NT[:3])
    assert torch.equal(some.words_N, whole.words_N[:3])


def test_a_second_start_tokenises_nothing(tmp_path: Path) -> None:
    assert beats(tmp_path) > 3
    assert beats(tmp_path) == 0


@pytest.mark.parametrize("change", ["documents", "block_tokens"])
def test_another_corpus_or_length_is_tokenised_and_replaces_the_first(tmp_path: Path, change: str) -> None:
    beats(tmp_path)
    again = beats(tmp_path, DOCUMENTS[:-1]) if change == "documents" else beats(tmp_path, block_tokens=16)
    assert again > 3
    assert len(list(tmp_path.iterdir())) == 1


def test_documents_cannot_be_cut_elsewhere_and_have_the_same_key(tmp_path: Path) -> None:
    cached_blocks(tmp_path, ["a fox", "an owl"], TOKENIZER, 2)
    (first,) = tmp_path.iterdir()
    cached_blocks(tmp_path, ["a foxa", "n owl"], TOKENIZER, 2)
    (second,) = tmp_path.iterdir()
    assert first.name != second.name


def test_a_kill_while_writing_leaves_nothing_that_counts(tmp_path: Path) -> None:
    def die() -> None:
        raise Killed

    with pytest.raises(Killed):
        cached_blocks(tmp_path, DOCUMENTS, TOKENIZER, 32, die)
    assert [path.name.startswith(".building-") for path in tmp_path.iterdir()] == [True]
    assert beats(tmp_path) > 3
    (place,) = tmp_path.iterdir()
    assert len(open_blocks(place)) > 50


def test_a_changed_file_is_made_anew(tmp_path: Path) -> None:
    beats(tmp_path)
    (place,) = tmp_path.iterdir()
    expected = make_blocks(DOCUMENTS, TOKENIZER, 32)
    content = bytearray((place / TOKENS).read_bytes())
    content[8] ^= 1
    (place / TOKENS).write_bytes(content)
    assert beats(tmp_path) > 3
    assert torch.equal(open_blocks(place).tokens_NT, expected.tokens_NT)


def test_no_block_is_no_block(tmp_path: Path) -> None:
    blocks = open_blocks(cached_blocks(tmp_path, ["a fox"], TOKENIZER, 32))
    assert (len(blocks), blocks.tokens_NT.shape) == (0, (0, 32))
    (place,) = tmp_path.iterdir()
    assert json.loads((place / MANIFEST).read_text())["blocks"] == 0
