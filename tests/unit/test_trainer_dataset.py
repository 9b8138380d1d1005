"""Blocks: every token in its place, every word charged once."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from services.student_trainer.dataset import derive_seed, epoch_order, make_blocks
from services.student_trainer.grammar import generate_documents
from services.student_trainer.settings import TokenizerSettings
from services.student_trainer.tokenizer import train_tokenizer
from services.student_trainer.words import count_words

DOCUMENTS = [document.text for document in generate_documents(4_000, seed=1)]
TOKENIZER = train_tokenizer(DOCUMENTS, TokenizerSettings(vocab_size=600))


def test_blocks_hold_the_documents_joined_by_end_tokens() -> None:
    blocks = make_blocks(DOCUMENTS, TOKENIZER, 32)
    text = str(TOKENIZER.decode(blocks.tokens_NT.flatten().tolist()))
    joined = "".join(f"{document}</s>" for document in DOCUMENTS)
    assert joined.startswith(text)
    assert len(joined) - len(text) < 32 * 20
    assert blocks.tokens_NT.shape == (len(blocks), 32)


@given(st.lists(st.text(max_size=40), max_size=6))
def test_words_of_one_token_blocks_are_the_words_of_the_text(documents: list[str]) -> None:
    blocks = make_blocks(documents, TOKENIZER, 1)
    assert int(blocks.words_N.sum()) == sum(map(count_words, documents))


def test_a_word_is_charged_where_it_ends() -> None:
    blocks = make_blocks(["Once upon qzxv", "a time"], TOKENIZER, 1)
    tokens = [TOKENIZER.decode([i]) for i in blocks.tokens_NT.flatten().tolist()]
    charged = [token for token, words in zip(tokens, blocks.words_N.tolist(), strict=True) if words]
    assert charged == ["Once", " upon", "v", "a", " time"]
    assert tokens[-1] == "</s>"


def test_only_the_tail_is_dropped() -> None:
    blocks = make_blocks(DOCUMENTS, TOKENIZER, 64)
    total = sum(map(count_words, DOCUMENTS))
    assert total - 64 <= int(blocks.words_N.sum()) <= total


def test_text_that_looks_like_an_end_token_is_text() -> None:
    blocks = make_blocks(["a </s> b"], TOKENIZER, 1)
    assert (blocks.tokens_NT == TOKENIZER.eos_token_id).sum() == 1


def test_no_documents_make_no_blocks() -> None:
    assert len(make_blocks([], TOKENIZER, 8)) == 0


def test_epochs_are_permutations_of_their_own() -> None:
    first, again, second = epoch_order(50, 1, 0), epoch_order(50, 1, 0), epoch_order(50, 1, 1)
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    assert not torch.equal(first, epoch_order(50, 2, 0))
    assert sorted(second.tolist()) == list(range(50))


def test_derived_seeds_are_apart_and_fit_a_generator() -> None:
    seeds = {derive_seed(s, purpose, i) for s in range(5) for purpose in ("epoch", "dropout") for i in range(50)}
    assert len(seeds) == 500
    assert all(0 <= seed < 2**63 for seed in seeds)
