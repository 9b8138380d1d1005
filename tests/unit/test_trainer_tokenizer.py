"""The byte-level tokenizer: special tokens, nothing added, any text survives."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from services.student_trainer.grammar import generate_documents
from services.student_trainer.settings import TokenizerSettings
from services.student_trainer.tokenizer import SPECIAL_TOKENS, save_tokenizer, train_tokenizer

TEXTS = [document.text for document in generate_documents(20_000, seed=1)]
SETTINGS = TokenizerSettings(vocab_size=1_500)
TOKENIZER = train_tokenizer(TEXTS, SETTINGS)


def test_special_tokens_have_the_first_ids() -> None:
    assert TOKENIZER.convert_tokens_to_ids(list(SPECIAL_TOKENS)) == [0, 1, 2, 3, 4]
    assert SPECIAL_TOKENS == ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
    assert (TOKENIZER.bos_token_id, TOKENIZER.pad_token_id, TOKENIZER.eos_token_id) == (0, 1, 2)


def test_size_is_as_asked_and_common_words_are_one_token() -> None:
    assert len(TOKENIZER) == 1_500
    for word in (" the", " lived", " once", " land", " said"):
        assert len(TOKENIZER.encode(word)) == 1, word


def test_a_small_corpus_gives_a_small_vocabulary() -> None:
    assert len(train_tokenizer(["a fox"], TokenizerSettings(vocab_size=5_000))) == 5 + 256


def test_nothing_is_added_when_encoding() -> None:
    ids = TOKENIZER.encode("Once upon a time")
    assert not set(ids) & {0, 1, 2, 3, 4}
    assert TOKENIZER("Once upon a time").input_ids == ids


@given(st.text())
def test_any_text_survives(text: str) -> None:
    ids = TOKENIZER.encode(text, split_special_tokens=True)
    assert TOKENIZER.decode(ids) == text
    assert not set(ids) & {0, 1, 2, 3, 4}


@given(st.sampled_from(TEXTS))
def test_the_corpus_survives(text: str) -> None:
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text


def test_text_that_looks_like_a_control_token_stays_text_when_asked() -> None:
    assert TOKENIZER.encode("</s>") == [2]
    ids = TOKENIZER.encode("</s>", split_special_tokens=True)
    assert 2 not in ids
    assert TOKENIZER.decode(ids) == "</s>"


def test_training_is_deterministic() -> None:
    again = train_tokenizer(TEXTS, SETTINGS)
    assert again.get_vocab() == TOKENIZER.get_vocab()
    assert again.backend_tokenizer.to_str() == TOKENIZER.backend_tokenizer.to_str()


@pytest.fixture
def reloaded(tmp_path: Path) -> PreTrainedTokenizerFast:
    TOKENIZER.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert isinstance(loaded, PreTrainedTokenizerFast)
    return loaded


def test_a_saved_one_loads_in_plain_transformers(reloaded: PreTrainedTokenizerFast) -> None:
    text = 'Once upon a time, "Hello ," said the fox. n\'t </s>  ☃\n'
    assert reloaded.encode(text) == TOKENIZER.encode(text)
    assert reloaded.decode(reloaded.encode(text)) == text
    assert reloaded.eos_token_id == 2


def test_what_is_saved_names_a_class_that_transformers_4_knows(tmp_path: Path) -> None:
    save_tokenizer(TOKENIZER, tmp_path)
    written = json.loads((tmp_path / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert written["tokenizer_class"] == "PreTrainedTokenizerFast"
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert list(loaded("The fox ran.")) == ["input_ids", "attention_mask"]  # version 4 adds token_type_ids by default
    assert loaded("The fox ran.")["input_ids"] == TOKENIZER("The fox ran.")["input_ids"]
    assert loaded.all_special_tokens == TOKENIZER.all_special_tokens
    save_tokenizer(loaded, tmp_path / "again")
    again = json.loads((tmp_path / "again" / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert again["tokenizer_class"] == "PreTrainedTokenizerFast"
