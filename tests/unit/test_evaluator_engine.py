"""The engine's log-probabilities against one sentence at a time, and what it refuses."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import GPT2LMHeadModel, PreTrainedModel, PreTrainedTokenizerFast

from services.evaluator.batching import Encoded, encode, token_batches, trees
from services.evaluator.engine import LogProbabilityEngine
from services.evaluator.errors import AbandonedError, CheckpointError, ItemsError
from services.evaluator.fitting import leave_out_long
from services.evaluator.generated.box_stories import box_stories
from services.evaluator.generated.minimal_pairs import minimal_pairs
from services.evaluator.items import Item, ItemSet, choice, chosen, minimal_pair, tied
from tests.evaluator_helpers import brute_force, no_progress, tiny_gpt2, tiny_llama, tiny_tokenizer
from tests.evaluator_models import seeded, tiny_mamba, tiny_mistral, tiny_qwen2


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return tiny_tokenizer()


@pytest.fixture(scope="module", params=["gpt2", "llama", "qwen2"])
def model(request: pytest.FixtureRequest, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    make = {"gpt2": tiny_gpt2, "llama": tiny_llama, "qwen2": tiny_qwen2}[request.param]
    return make(len(tokenizer))


def some_items() -> list[Item]:
    pairs, boxes = minimal_pairs(1, 4).items, box_stories(1, 6).items
    odd = [
        minimal_pair("odd", "The cat sat. It\u2019s warm \u2014 na\u00efve!", "The cat sat. Its warm."),
        choice("odd", "A very long way to the", [" castle of the old king.", " hill.", " river by the sea."]),
        choice("odd", "No shared start matters here: ", ["x.", "yy.", "zzz."]),
    ]
    return [*pairs, *boxes, *odd]


@pytest.mark.parametrize("budget", [1, 64, 1024])
def test_scores_equal_one_candidate_at_a_time(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, budget: int
) -> None:
    items = some_items()
    found = LogProbabilityEngine(model, tokenizer, budget).score(items, no_progress)
    expected = brute_force(model, tokenizer, items)
    for item, ours, theirs in zip(items, found, expected, strict=True):
        assert list(ours) == pytest.approx(theirs, abs=2e-4), item.uid
        assert chosen(ours) == chosen(theirs)


def test_added_special_tokens_are_read_but_never_scored() -> None:
    tokenizer = tiny_tokenizer(add_bos=True)
    model = tiny_gpt2(len(tokenizer))
    items = some_items()
    found = LogProbabilityEngine(model, tokenizer).score(items, no_progress)
    for ours, theirs in zip(found, brute_force(model, tokenizer, items), strict=True):
        assert list(ours) == pytest.approx(theirs, abs=2e-4)
    with_bos = found[0][0]
    plain = LogProbabilityEngine(model, tiny_tokenizer()).score(items[:1], no_progress)[0][0]
    assert with_bos != pytest.approx(plain, abs=1e-3)  # a first word that <s> predicts is scored; without <s> it is not


def test_trees_change_nothing(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    items = [*box_stories(3, 5).items, *some_items()]
    fast, plain = (LogProbabilityEngine(model, tokenizer) for _ in range(2))
    plain._fast = False
    for a, b in zip(fast.score(items, no_progress), plain.score(items, no_progress), strict=True):
        assert list(a) == pytest.approx(b, abs=1e-4)
    assert fast._fast


@pytest.mark.parametrize("size", [1, 63, 64, 65, 101])
def test_a_head_of_any_size_keeps_its_logits(tokenizer: PreTrainedTokenizerFast, size: int) -> None:
    model = tiny_gpt2(len(tokenizer) + size)
    ids = torch.arange(20)[None]
    with torch.inference_mode():
        before = model(input_ids=ids).logits
        LogProbabilityEngine(model, tokenizer)
        after = model(input_ids=ids).logits
    rows = {name: len(weight) for name, weight in model.named_parameters(remove_duplicate=False)}
    assert rows["lm_head.weight"] % 64 == 0
    assert rows["transformer.wte.weight"] == len(tokenizer) + size  # tied once, and untouched
    torch.testing.assert_close(after, before, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", [tiny_mistral, tiny_mamba])
def test_a_model_that_takes_no_trees_is_scored_plainly(
    kind: Callable[[int], PreTrainedModel], tokenizer: PreTrainedTokenizerFast
) -> None:
    model = kind(len(tokenizer))
    engine = LogProbabilityEngine(model, tokenizer)
    items = some_items()
    for ours, theirs in zip(engine.score(items, no_progress), brute_force(model, tokenizer, items), strict=True):
        assert list(ours) == pytest.approx(theirs, abs=2e-4)
    assert not engine._fast


def test_a_window_counts_only_where_a_text_is_longer(tokenizer: PreTrainedTokenizerFast) -> None:
    engine = LogProbabilityEngine(tiny_mistral(len(tokenizer)), tokenizer)
    engine.score([minimal_pair("short", "The fox ran.", "The fox run.")], no_progress)
    assert engine._fast
    engine.score(box_stories(3, 1).items, no_progress)
    assert not engine._fast


def test_bfloat16_scores_are_near_and_its_trees_are_checked_in_fp32(tokenizer: PreTrainedTokenizerFast) -> None:
    items = minimal_pairs(1, 2).items
    exact = LogProbabilityEngine(tiny_gpt2(len(tokenizer)), tokenizer).score(items, no_progress)
    model = tiny_gpt2(len(tokenizer)).to(torch.bfloat16)  # type: ignore[arg-type]
    engine = LogProbabilityEngine(model, tokenizer)
    for a, b in zip(engine.score(items, no_progress), exact, strict=True):
        assert list(a) == pytest.approx(b, rel=0.05)
        assert list(a) != list(b)
    assert engine._fast
    assert engine._model.dtype == torch.bfloat16


def test_the_pieces_of_a_chain_share_its_work(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    """Every word after its own beginning, as reading times ask: as many nodes as the longest has tokens."""
    ids = tuple(tokenizer("The old king had a lantern, and the fox knew it well.")["input_ids"])
    chain = [Encoded(ids[:n], (n - 1,)) for n in range(2, len(ids) + 1)]
    (tree,) = trees(chain, 1024)
    assert tree.ids == ids[:-1]
    values = LogProbabilityEngine(model, tokenizer).token_log_probabilities(chain, lambda _: None)
    whole = LogProbabilityEngine(model, tokenizer)._run(model, [Encoded(ids, tuple(range(1, len(ids))))], fast=False)
    with torch.inference_mode():
        assert [v for (v,) in values] == pytest.approx(next(iter(whole))[1], abs=1e-4)


class SmallMemory(GPT2LMHeadModel):
    """A GPT-2 on a device that has room for `rows` sequences at once."""

    rows = 0

    def forward(self, input_ids: torch.Tensor, **inputs: Any) -> Any:
        if len(input_ids) > self.rows:
            raise torch.OutOfMemoryError(f"no room for {len(input_ids)} rows")
        return super().forward(input_ids, **inputs)


def test_a_batch_that_does_not_fit_is_halved_once(
    tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = minimal_pairs(1, 2).items
    model = seeded(SmallMemory, tiny_gpt2(len(tokenizer)).config)
    engine = LogProbabilityEngine(model, tokenizer, 512)
    engine._fast = False
    monkeypatch.setattr(SmallMemory, "rows", 1000)
    expected = engine.score(items, no_progress)
    widest = 512 // max(engine.lengths(items))
    monkeypatch.setattr(SmallMemory, "rows", 3 * widest // 4)
    for a, b in zip(engine.score(items, no_progress), expected, strict=True):
        assert list(a) == pytest.approx(b, abs=1e-4)
    monkeypatch.setattr(SmallMemory, "rows", widest // 4)
    with pytest.raises(CheckpointError, match=r"too small for half a batch of \d+ rows .* lower token_budget"):
        engine.score(items, no_progress)


def test_equal_candidates_tie_exactly_and_the_first_is_taken(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    same = "The fox was happy near the old castle in the forest."
    items = [minimal_pair("tie", same, same), *minimal_pairs(2, 3).items]
    scores = LogProbabilityEngine(model, tokenizer, 32).score(items, no_progress)
    assert scores[0][0] == scores[0][1]
    assert tied(scores[0]) == (0, 1)
    assert chosen(scores[0]) == 0


def test_items_are_held_against_the_context(tokenizer: PreTrainedTokenizerFast) -> None:
    engine = LogProbabilityEngine(tiny_gpt2(len(tokenizer), context=16), tokenizer)
    long, short = minimal_pair("long", "The fox ran " * 9 + "home.", "The fox run."), minimal_pairs(0, 1).items[0]
    lengths = engine.lengths([long, short])
    assert lengths[0] == len(tokenizer(long.candidates[0].text)["input_ids"])
    assert engine.context == 16
    with pytest.raises(ItemsError, match=rf"an item of {lengths[0]} tokens does not fit .* context of 16"):
        engine.score([long, short], no_progress)


def test_few_long_items_are_left_out_and_said_many_are_refused() -> None:
    items = ItemSet(tuple(minimal_pair(f"p{i % 2}", f"a {i}", f"b {i}") for i in range(20)), "here")
    assert leave_out_long(items, [9] * 20, 9) == (items, None)
    assert leave_out_long(items, [9] * 20, None) == (items, None)
    kept, note = leave_out_long(items, [30, 12, *[9] * 18], 9)
    assert (kept.items, kept.source) == (items.items[2:], "here")
    assert note is not None
    assert "2 of 20 items are longer than the checkpoint's context of 9 tokens (the longest has 30)" in note
    with pytest.raises(ItemsError, match=r"3 of 20 items .* needs a student with a context of 30 tokens or more"):
        leave_out_long(items, [30, 12, 12, *[9] * 17], 9)
    one = ItemSet((minimal_pair("rare", "a", "b"), *items.items), "here")
    with pytest.raises(ItemsError, match="all of rare among them"):
        leave_out_long(one, [30, *[9] * 20], 9)


def test_a_candidate_without_a_predicted_token_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    engine = LogProbabilityEngine(tiny_gpt2(len(tokenizer)), tokenizer)
    with pytest.raises(ItemsError, match="no token that could be scored"):
        engine.score([minimal_pair("single", "The fox was here.", "T")], no_progress)


def test_progress_counts_up_to_all_items_and_may_stop_the_work(tokenizer: PreTrainedTokenizerFast) -> None:
    engine = LogProbabilityEngine(tiny_gpt2(len(tokenizer)), tokenizer, 64)
    seen: list[tuple[int, int]] = []
    items = some_items()
    engine.score(items, lambda done, total: seen.append((done, total)))
    assert seen[-1] == (len(items), len(items))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)

    def stop(done: int, total: int) -> None:
        raise AbandonedError("the process is stopping")

    with pytest.raises(AbandonedError):
        engine.score(items, stop)


def test_only_tokens_that_reach_into_the_completion_are_scored() -> None:
    # "ab " + "cd": the token "b c" straddles the boundary and counts, a lone space before it would not.
    assert encode([5, 6, 7], [(0, 1), (1, 4), (4, 5)], completion_start=3).scored == (1, 2)
    assert encode([5, 6, 7], [(0, 2), (2, 3), (3, 5)], completion_start=3).scored == (2,)
    trailing = encode([0, 5, 6, 2], [(0, 0), (0, 2), (2, 5), (0, 0)], completion_start=0)
    assert trailing.ids == (0, 5, 6)  # the closing special token predicts nothing that is summed
    assert trailing.scored == (1, 2)


def test_batches_hold_the_budget_and_every_index_once() -> None:
    lengths = [3, 90, 10, 10, 200, 7, 1]
    batches = list(token_batches(lengths, 100))
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or max(lengths[i] for i in batch) * len(batch) <= 100
