"""Several batches at once: the same answers as one after the other, and nothing left behind."""

from collections.abc import Iterator
from threading import get_ident

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from services.evaluator.engine import LogProbabilityEngine
from services.evaluator.errors import AbandonedError
from services.evaluator.generated.minimal_pairs import minimal_pairs
from services.evaluator.threads import at_once
from tests.evaluator_helpers import brute_force, no_progress, tiny_gpt2, tiny_tokenizer

THREADS = 3


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return tiny_tokenizer()


@pytest.fixture
def model(tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    return tiny_gpt2(len(tokenizer))


@pytest.fixture(autouse=True)
def threads(model: PreTrainedModel) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)  # building a tiny model leaves one
    yield
    torch.set_num_threads(before)


def callers(model: PreTrainedModel) -> set[int]:
    """Fills with the threads that call `model`."""
    found: set[int] = set()
    model.register_forward_pre_hook(lambda *_: found.add(get_ident()))
    return found


def test_scores_are_those_of_one_batch_after_the_other_whatever_thread_took_which(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    items = minimal_pairs(1, 8).items
    seen = callers(model)
    engine = LogProbabilityEngine(model, tokenizer, 24)
    found = [engine.score(items, no_progress) for _ in range(5)]
    assert len(seen - {get_ident()}) > 1
    assert found[1:] == found[:1] * 4
    for ours, theirs in zip(found[0], brute_force(model, tokenizer, items), strict=True):
        assert list(ours) == pytest.approx(theirs, abs=2e-4)
    assert torch.get_num_threads() == THREADS


def test_what_has_not_begun_is_dropped_when_the_watcher_stops(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    items = minimal_pairs(1, 40).items
    calls: list[int] = []
    model.register_forward_pre_hook(lambda *_: calls.append(1))
    engine = LogProbabilityEngine(model, tokenizer, 24)
    engine.score(items, no_progress)
    whole = len(calls)

    def stop(_done: int, _total: int) -> None:
        raise AbandonedError

    with pytest.raises(AbandonedError) as stopped:  # held, as by whoever reports it: the generator stays alive
        engine.score(items, stop)
    assert stopped.tb is not None
    assert torch.get_num_threads() == THREADS
    after = len(calls)
    assert after - whole < whole / 2
    assert engine.score(items[:1], no_progress)  # no thread is left that would still be calling
    assert len(calls) - after <= 2


def test_a_failure_in_a_thread_reaches_the_caller(model: PreTrainedModel) -> None:
    def run(one: int) -> int:
        if one == 2:
            raise ValueError(one)
        return one

    with pytest.raises(ValueError, match="2"):
        list(at_once(model, range(4), run))
    assert torch.get_num_threads() == THREADS


@pytest.mark.parametrize("kind", ["default", "dynamic", "longrope"])
def test_rotary_frequencies_that_a_call_rewrites_keep_to_one_thread(kind: str) -> None:
    factors = {"short_factor": [1.0] * 8, "long_factor": [2.0] * 8} if kind == "longrope" else {}
    rope = {"rope_type": kind, "rope_theta": 10000.0, "factor": 2.0, **factors}
    config = LlamaConfig(
        vocab_size=32,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=64,
        rope_parameters=rope,
    )
    llama = LlamaForCausalLM(config).eval()
    seen = callers(llama)
    rows = [torch.tensor([[number, number + 1]]) for number in range(12)]
    with torch.inference_mode():
        found = list(at_once(llama, rows, lambda row: float(llama(row).logits.sum())))
        assert found == pytest.approx([float(llama(row).logits.sum()) for row in rows], abs=1e-5)
    assert (seen == {get_ident()}) is (kind != "default")
