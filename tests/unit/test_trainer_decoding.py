"""Decoding against plain, uncached forwards of one row at a time, for students of several kinds."""

from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, MistralConfig, PreTrainedConfig, Qwen2Config

from services.student_trainer.decoding import Decoded
from services.student_trainer.decoding_gpt2 import is_plain_gpt2
from tests.decoding_helpers import (
    ALIKE,
    EOS,
    LEVEL,
    STUDENTS,
    UNLIKE,
    VOCAB,
    check,
    few_words,
    gpt2,
    llama,
    plain_logprobs,
    random_student,
    student,
    uniforms,
    write,
)


@pytest.mark.parametrize("prompts", [ALIKE, LEVEL, UNLIKE, UNLIKE[:1]], ids=["alike", "level", "unlike", "one"])
@pytest.mark.parametrize("name", STUDENTS)
def test_log_probabilities_are_those_of_a_plain_forward(name: str, prompts: list[list[int]]) -> None:
    model, numbers = student(name), uniforms(len(prompts))
    for temperature in (1.0, 0.6):
        check(model, prompts, numbers, write(model, prompts, numbers, temperature), temperature)
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("prompts", [ALIKE, UNLIKE], ids=["alike", "unlike"])
@pytest.mark.parametrize("name", ["gpt2", "gpt2 upcast", "llama"])
def test_rows_that_end_at_different_tokens(name: str, prompts: list[list[int]]) -> None:
    model = few_words(name)
    many, numbers = prompts * 5, uniforms(25)
    written = write(model, many, numbers)
    check(model, many, numbers, written)
    assert len(set(written.lengths_B.tolist())) >= 6
    assert written.ended_B.any()
    assert not written.ended_B.all()


@pytest.mark.parametrize("name", ["llama", "qwen2"])
def test_keys_and_values_stay_in_their_memory(name: str) -> None:
    """From the first new token to the last, while rows end."""
    model = few_words(name)
    places: list[list[int]] = []

    def look(_: nn.Module, __: object, given: dict[str, Any], ___: object) -> None:
        layers = given["past_key_values"].layers
        places.append([states.data_ptr() for layer in layers for states in (layer.keys, layer.values)])

    model.register_forward_hook(look, with_kwargs=True)
    written = write(model, ALIKE * 5, uniforms(25))
    assert len(set(written.lengths_B.tolist())) >= 6
    reading, *steps = places
    assert len(steps) == 11
    assert all(place == steps[0] for place in steps)
    assert len(set(steps[0])) == len(reading) == 4


SLIDING: dict[str, PreTrainedConfig] = {
    "all layers": llama(MistralConfig, num_key_value_heads=2, sliding_window=6),
    "one layer": llama(
        Qwen2Config,
        num_key_value_heads=2,
        use_sliding_window=True,
        sliding_window=6,
        layer_types=["full_attention", "sliding_attention"],
    ),
}


@pytest.mark.parametrize("name", SLIDING)
def test_layers_that_see_a_window_only(name: str) -> None:
    """Past the window's 6 tokens, for prompts equally long; few words to choose from, so that rows end."""
    model, numbers = random_student(SLIDING[name]), uniforms(3)
    check(model, LEVEL, numbers, write(model, LEVEL, numbers))
    few = type(SLIDING[name])(**SLIDING[name].to_dict() | {"vocab_size": 18})
    model, numbers = random_student(few, 4, sharpen=1.0), uniforms(25)
    written = write(model, ALIKE * 5, numbers)
    check(model, ALIKE * 5, numbers, written)
    assert len(set(written.lengths_B.tolist())) >= 6
    with pytest.raises(ValueError, match=r"a window of 6 tokens, and prompts of several lengths with up to 18"):
        write(model, UNLIKE, uniforms(5))


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_the_end_as_first_token(name: str) -> None:
    model = student(name)
    probabilities = plain_logprobs(model, ALIKE[0], [0], 1.0)[0].exp()
    ends_at_once = probabilities[:EOS].sum() + probabilities[EOS] / 2
    numbers = uniforms(5)
    numbers[[0, 2, 4], 0] = ends_at_once
    written = write(model, ALIKE, numbers)
    check(model, ALIKE, numbers, written)
    assert written.lengths_B[[0, 2, 4]].tolist() == [1, 1, 1]
    numbers[:, 0] = ends_at_once
    assert write(model, ALIKE, numbers).tokens_BT.tolist() == [[EOS]] * 5


@cache
def written_alone(name: str, prompt: int, row: int) -> Decoded:
    """Row `row` of the property test's numbers after `UNLIKE[prompt]`, in a batch of one."""
    return write(student(name), [UNLIKE[prompt]], uniforms(8, seed=3)[[row]])


@given(data=st.data())
@settings(max_examples=12, deadline=None, derandomize=True)
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_a_row_does_not_depend_on_its_batch(name: str, data: st.DataObject) -> None:
    """Whoever else is written with it, in whatever order and chunks, and whatever their prompts."""
    model, numbers = student(name), uniforms(8, seed=3)
    prompts = data.draw(st.lists(st.integers(0, len(UNLIKE) - 1), min_size=8, max_size=8))
    order = data.draw(st.permutations(range(8)))[: data.draw(st.integers(1, 8))]
    chunk = data.draw(st.integers(1, len(order)))
    for first in range(0, len(order), chunk):
        rows = order[first : first + chunk]
        together = write(model, [UNLIKE[prompts[row]] for row in rows], numbers[rows])
        for b, row in enumerate(rows):
            single = written_alone(name, prompts[row], row)
            length = int(single.lengths_B)
            assert int(together.lengths_B[b]) == length
            assert torch.equal(together.tokens_BT[b, :length], single.tokens_BT[0])
            torch.testing.assert_close(together.logprobs_BT[b, :length], single.logprobs_BT[0], atol=1e-5, rtol=0)


def test_weights_are_read_anew_each_time() -> None:
    model = AutoModelForCausalLM.from_config(gpt2())
    before = write(model, ALIKE, uniforms(5))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.5 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel()))
    after = write(model, ALIKE, uniforms(5))
    assert not torch.equal(before.tokens_BT, after.tokens_BT)
    check(model, ALIKE, uniforms(5), after)


def test_which_students_take_the_fast_path() -> None:
    fast = [name for name in STUDENTS if is_plain_gpt2(student(name))]
    assert fast == [name for name in STUDENTS if name.startswith("gpt2") and name != "gpt2 upcast"]


def test_a_replaced_part_leaves_the_fast_path() -> None:
    class Doubling(nn.Linear):
        """Gives twice what is asked, as an adapter might change it."""

        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    model = AutoModelForCausalLM.from_config(gpt2())
    model.transformer.h[1].attn.c_attn = Doubling(16, 48)
    assert not is_plain_gpt2(model)
    check(model, ALIKE, uniforms(5), write(model, ALIKE, uniforms(5)))


def test_modes_are_left_as_they_were_found() -> None:
    model = AutoModelForCausalLM.from_config(STUDENTS["gpt2 dropout"]).train()
    model.transformer.h[1].eval()
    modes = [module.training for module in model.modules()]
    first, second = (write(model, ALIKE, uniforms(5)) for _ in range(2))
    assert torch.equal(first.logprobs_BT, second.logprobs_BT)
    assert [module.training for module in model.modules()] == modes


def test_what_was_written_can_be_learned_from() -> None:
    """Tensors of inference mode could not be saved for a backward pass."""
    written = write(student("gpt2"), ALIKE, uniforms(5))
    table = nn.Embedding(VOCAB, 1)
    (table(written.tokens_BT).squeeze(-1) * written.logprobs_BT).sum().backward()
    assert table.weight.grad is not None


def test_autocast_around_it_changes_nothing() -> None:
    plain = write(student("gpt2"), UNLIKE, uniforms(5))
    with torch.autocast("cpu", torch.bfloat16):
        inside = write(student("gpt2"), UNLIKE, uniforms(5))
    assert torch.equal(plain.logprobs_BT, inside.logprobs_BT)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_bfloat16_weights(name: str) -> None:
    """Within bfloat16's rounding of the same weights in float32."""
    model = AutoModelForCausalLM.from_config(STUDENTS[name]).bfloat16()
    written = write(model, ALIKE, uniforms(5))
    precise = model.float()
    for b, prompt in enumerate(ALIKE):
        row = written.tokens_BT[b, : int(written.lengths_B[b])].tolist()
        expected_T = plain_logprobs(precise, prompt, row, 1.0)[torch.arange(len(row)), row]
        torch.testing.assert_close(written.logprobs_BT[b, : len(row)].double(), expected_T, atol=0.05, rtol=0)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="6 tokens and 35 new ones do not fit the model's 40 positions"):
        write(student("gpt2"), UNLIKE, uniforms(5, room=35))
    fitting = write(student("gpt2"), UNLIKE, uniforms(5, room=34))
    check(student("gpt2"), UNLIKE, uniforms(5, room=34), fitting)
    with pytest.raises(ValueError, match=r"\[4, 0\]"):
        write(student("gpt2"), [ALIKE[0], []], uniforms(2))


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_broken_weights_are_said(name: str) -> None:
    model = AutoModelForCausalLM.from_config(STUDENTS[name])
    with torch.no_grad():
        model.get_output_embeddings().weight[3, 0] = torch.nan
    with pytest.raises(FloatingPointError, match="not finite"):
        write(model, ALIKE, uniforms(5))
