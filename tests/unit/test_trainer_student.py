"""The student: seeded, of the asked shape, loadable by anyone."""

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import JsonValue
from transformers import AutoModelForCausalLM, T5Config

from services.student_trainer.settings import StudentSettings, TokenizerSettings
from services.student_trainer.student import StudentError, build_student, load_initial, load_student, parameter_count
from services.student_trainer.tokenizer import train_tokenizer

TOKENIZER = train_tokenizer(["Once upon a time there was a fox. " * 3], TokenizerSettings(vocab_size=300))
SMALL = StudentSettings(layers=2, heads=2, width=32, context=64, dropout=0.0)


def weights(seed: int) -> dict[str, torch.Tensor]:
    return build_student(SMALL, TOKENIZER, seed).state_dict()


def test_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(1)
    first = weights(5)
    torch.manual_seed(2)
    second = weights(5)
    assert all(torch.equal(first[name], second[name]) for name in first)
    other = weights(6)
    assert not torch.equal(first["transformer.wte.weight"], other["transformer.wte.weight"])


def test_the_global_random_state_is_left_alone() -> None:
    before = torch.get_rng_state()
    build_student(SMALL, TOKENIZER, 5)
    assert torch.equal(torch.get_rng_state(), before)


def test_shape_and_token_ids_are_as_asked() -> None:
    student = build_student(SMALL, TOKENIZER, 0)
    config = student.config
    assert (config.n_layer, config.n_head, config.n_embd, config.n_positions) == (2, 2, 32, 64)
    assert config.vocab_size == len(TOKENIZER)
    assert config.activation_function == "gelu_pytorch_tanh"
    for source in (config, student.generation_config):
        assert (source.bos_token_id, source.eos_token_id, source.pad_token_id) == (0, 2, 1)
    assert student.get_output_embeddings().weight is student.get_input_embeddings().weight
    assert student.training


def test_parameters_are_counted_once() -> None:
    width, vocab = 32, len(TOKENIZER)
    block = 12 * width**2 + 13 * width
    assert parameter_count(build_student(SMALL, TOKENIZER, 0)) == (vocab + 64) * width + 2 * block + 2 * width


def test_logits_are_equal_with_and_without_gradients() -> None:
    student = build_student(SMALL, TOKENIZER, 0)
    tokens_BT = torch.randint(5, len(TOKENIZER), (3, 20), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        without = student(tokens_BT).logits
    assert torch.equal(student(tokens_BT).logits, without)


def test_a_saved_student_loads_here_and_in_plain_transformers(tmp_path: Path) -> None:
    student = build_student(SMALL, TOKENIZER, 3)
    student.save_pretrained(tmp_path)
    loaded = load_student(tmp_path)
    loading: Any = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    plain, report = loading
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    for model in (loaded, plain):
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), student.parameters(), strict=True))
    assert not loaded.training


KINDS: list[tuple[str, dict[str, JsonValue]]] = [
    ("llama", {"num_key_value_heads": 1}),
    ("qwen2", {}),
    ("qwen3", {"tie_word_embeddings": False}),
    ("mistral", {"sliding_window": 8}),
    ("gpt_neox", {}),
]


@pytest.mark.parametrize(("name", "config"), KINDS)
def test_students_of_other_kinds_have_the_asked_shape(name: str, config: dict[str, JsonValue]) -> None:
    settings = SMALL.model_copy(update={"model": name, "config": config, "dropout": 0.3})
    student = build_student(settings, TOKENIZER, 4)
    found = student.config
    assert found.model_type == name
    shape = (found.num_hidden_layers, found.num_attention_heads, found.hidden_size, found.max_position_embeddings)
    assert shape == (2, 2, 32, 64)
    assert (found.vocab_size, found.eos_token_id, student.generation_config.pad_token_id) == (len(TOKENIZER), 2, 1)
    assert found.attention_dropout == 0.3
    assert all(getattr(found, field) == value for field, value in config.items())
    tied = student.get_output_embeddings().weight is student.get_input_embeddings().weight
    assert tied == found.tie_word_embeddings == config.get("tie_word_embeddings", True)
    again = build_student(settings, TOKENIZER, 4)
    assert all(torch.equal(a, b) for a, b in zip(student.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("lama", {}, r"'lama' is no causal language model of transformers; did you mean llama"),
        ("t5", {}, r"'t5' is no causal language model of transformers; try gpt2, llama"),
        ("mamba", {}, r"mamba: its configuration has no max_position_embeddings, num_attention_heads; try gpt2"),
        ("llama", {"num_key_value_head": 1}, r"num_key_value_head is no field.*did you mean num_key_value_heads\?"),
        ("llama", {"hidden_size": 16}, r"student.config sets hidden_size, which student.layers.*leave it out"),
        ("gpt2", {"n_embd": 16}, r"student.config sets n_embd, which"),
        (
            "llama",
            {"num_key_value_heads": "two"},
            r"transformers refuses the configuration of student.model llama.*int",
        ),
        ("cohere", {}, r"cohere scales or caps its logits"),
        ("gemma2", {}, r"gemma2 scales or caps its logits"),
        ("bert", {}, r"bert sees the tokens that it is to predict"),
    ],
)
def test_wrong_names_and_fields_say_what_to_do(name: str, config: dict[str, JsonValue], message: str) -> None:
    with pytest.raises(StudentError, match=f"(?s){message}"):
        build_student(SMALL.model_copy(update={"model": name, "config": config}), TOKENIZER, 0)


def test_a_model_of_elsewhere_is_taken_over_in_fp32(tmp_path: Path) -> None:
    """A Llama in bfloat16, saved with a tokenizer that has no padding token."""
    settings = SMALL.model_copy(update={"model": "llama"})
    student = build_student(settings, TOKENIZER, 3)
    student.to(torch.bfloat16).save_pretrained(tmp_path)  # type: ignore[arg-type]
    tokenizer = train_tokenizer(["Once upon a time there was a fox. " * 3], TokenizerSettings(vocab_size=300))
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path)
    model, own = load_initial(str(tmp_path))
    assert (model.dtype, model.config.model_type) == (torch.float32, "llama")
    assert (own.pad_token, own.eos_token) == ("</s>", "</s>")
    assert all(torch.equal(a, b.float()) for a, b in zip(model.parameters(), student.parameters(), strict=True))


def test_a_tokenizer_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    build_student(SMALL, TOKENIZER, 3).save_pretrained(tmp_path)
    tokenizer = train_tokenizer(["Once upon a time there was a fox. " * 3], TokenizerSettings(vocab_size=300))
    tokenizer.add_tokens(["<more>"])
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(StudentError, match=f"{len(TOKENIZER) + 1} tokens do not fit its {len(TOKENIZER)} embeddings"):
        load_initial(str(tmp_path))
    tokenizer = train_tokenizer(["Once upon a time there was a fox. " * 3], TokenizerSettings(vocab_size=300))
    tokenizer.eos_token = None
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(StudentError, match="must be a fast one with an end token"):
        load_initial(str(tmp_path))


def test_what_is_no_causal_model_is_refused(tmp_path: Path) -> None:
    T5Config().save_pretrained(tmp_path)
    TOKENIZER.save_pretrained(tmp_path)
    with pytest.raises(StudentError, match="cannot be read as a causal language model"):
        load_initial(str(tmp_path))
