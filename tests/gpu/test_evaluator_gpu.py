"""The evaluator's engine, stories and memory on a GPU, against the CPU."""

import copy
from pathlib import Path

import pytest
import torch

from services.evaluator.adapters.checkpoint import load_checkpoint
from services.evaluator.adapters.memory import free_bytes, give_back
from services.evaluator.engine import LogProbabilityEngine
from services.evaluator.generated.box_stories import box_stories
from services.evaluator.generated.minimal_pairs import minimal_pairs
from services.evaluator.items import chosen
from services.evaluator.writing import write_stories
from tests.evaluator_helpers import brute_force, no_progress, save_checkpoint, tiny_gpt2, tiny_llama, tiny_tokenizer


@pytest.mark.parametrize("make", [tiny_gpt2, tiny_llama])
@pytest.mark.parametrize("budget", [64, None])
def test_scores_are_those_of_one_candidate_at_a_time(device: torch.device, make: object, budget: int | None) -> None:
    tokenizer = tiny_tokenizer()
    assert callable(make)
    model = make(len(tokenizer))
    items = [*minimal_pairs(1, 8).items, *box_stories(1, 8).items]
    expected = brute_force(model, tokenizer, items)
    engine = LogProbabilityEngine(copy.deepcopy(model).to(device), tokenizer, budget)
    found = engine.score(items, no_progress)
    assert engine._fast
    for item, ours, theirs in zip(items, found, expected, strict=True):
        assert list(ours) == pytest.approx(theirs, abs=2e-3), item.uid
        assert chosen(ours) == chosen(theirs) or max(ours) - min(ours) < 4e-3


def test_stories_are_the_same_each_time(device: torch.device, tmp_path: Path) -> None:
    loaded = load_checkpoint(save_checkpoint(tmp_path / "model"), str(device))
    state = torch.get_rng_state()
    first, second = (
        write_stories(
            loaded.model,
            loaded.tokenizer,
            "Once upon",
            stories=6,
            max_new_tokens=12,
            batch_size=4,
            seed=3,
            done=no_progress,
        )
        for _ in range(2)
    )
    assert [story.text for story in first] == [story.text for story in second]
    assert len({story.text for story in first}) > 1
    assert torch.equal(state, torch.get_rng_state())


def test_what_is_not_used_any_more_counts_as_free(device: torch.device) -> None:
    if device.type == "cpu":
        assert (free_bytes(device) or 1) > 0
        return
    give_back()
    before = free_bytes(device)
    assert before is not None
    block = torch.empty(2**28, dtype=torch.uint8, device=device)
    held = free_bytes(device)
    del block
    after = free_bytes(device)
    assert held is not None
    assert after is not None
    assert before - held >= 2**28
    assert abs(after - before) < 2**26
