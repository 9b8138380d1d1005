"""The student: seeded, of the asked shape, loadable by anyone."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from services.student_trainer.settings import StudentSettings, TokenizerSettings
from services.student_trainer.student import build_student, load_student, parameter_count
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
    assert student.lm_head.weight is student.transformer.wte.weight
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


def test_another_kind_of_model_is_refused(tmp_path: Path) -> None:
    config = LlamaConfig(
        vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, pad_token_id=1
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    with pytest.raises(TypeError, match="LlamaForCausalLM; expected a GPT2LMHeadModel"):
        load_student(tmp_path)
