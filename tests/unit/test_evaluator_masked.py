"""Masked models: every score against one masked copy at a time, as the BabyLM pipeline's `mlm` and `mntp` read it."""

from collections.abc import Callable, Sequence

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from services.evaluator.errors import CheckpointError, ItemsError
from services.evaluator.generated.box_stories import box_stories
from services.evaluator.generated.minimal_pairs import minimal_pairs
from services.evaluator.items import Item, choice, chosen, minimal_pair
from services.evaluator.masked import MaskedEngine
from tests.evaluator_helpers import no_progress, tiny_gpt2, tiny_tokenizer
from tests.evaluator_models import tiny_bert, tiny_modernbert, tiny_roberta

Make = Callable[[int], PreTrainedModel]


def tokenizer_with_mask(*, add_bos: bool = True) -> PreTrainedTokenizerFast:
    tokenizer = tiny_tokenizer(add_bos=add_bos)
    tokenizer.mask_token, tokenizer.cls_token = "<mask>", "<s>"
    return tokenizer


def one_at_a_time(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, item: Item, *, shifted: bool
) -> list[float]:
    """Mask a token, run the text alone, read its log-probability; the next token."""
    scores = []
    for candidate in item.candidates:
        encoded = tokenizer(candidate.text, return_offsets_mapping=True)
        ids = torch.tensor(encoded["input_ids"])
        score = 0.0
        for place, (_, end) in enumerate(encoded["offset_mapping"]):
            if end <= len(candidate.context) or (shifted and place == 0):
                continue
            masked = ids.clone()
            masked[place] = tokenizer.mask_token_id
            with torch.no_grad():
                logits_TV = model(input_ids=masked[None]).logits[0]
            score += float(torch.log_softmax(logits_TV[place - shifted], dim=-1)[ids[place]])
        scores.append(score)
    return scores


def items() -> Sequence[Item]:
    return [
        *minimal_pairs(1, 1).items[:3],
        *box_stories(1, 1).items[:1],
        minimal_pair("odd", "The cat sat. It\u2019s warm \u2014 na\u00efve!", "The cat sat. Its warm."),
        choice("odd", "A very long way to the", [" castle of the old king.", " hill.", " river by the sea."]),
    ]


@pytest.mark.parametrize(
    ("make", "shifted", "budget"),
    [(tiny_bert, False, 60), (tiny_bert, True, 1024), (tiny_roberta, True, 60), (tiny_modernbert, False, 1024)],
)
def test_scores_equal_one_masked_copy_at_a_time(make: Make, shifted: bool, budget: int) -> None:
    tokenizer = tokenizer_with_mask()
    model = make(len(tokenizer))
    engine = MaskedEngine(model, tokenizer, budget, shifted=shifted)
    found = engine.score(items(), no_progress)
    for item, ours in zip(items(), found, strict=True):
        theirs = one_at_a_time(model, tokenizer, item, shifted=shifted)
        assert list(ours) == pytest.approx(theirs, abs=2e-4), item.uid
        assert chosen(ours) == chosen(theirs)
    assert engine._fast


@pytest.mark.parametrize("shifted", [False, True])
def test_a_first_token_is_scored_unless_nothing_stands_before_it(shifted: bool) -> None:
    tokenizer = tokenizer_with_mask(add_bos=False)
    model = tiny_bert(len(tokenizer))
    item = minimal_pair("bare", "Foxes run far.", "Foxes runs far.")
    (ours,) = MaskedEngine(model, tokenizer, shifted=shifted).score([item], no_progress)
    assert list(ours) == pytest.approx(one_at_a_time(model, tokenizer, item, shifted=shifted), abs=1e-4)


def test_equal_texts_tie_exactly_whatever_stands_around_them() -> None:
    tokenizer = tokenizer_with_mask()
    same = minimal_pair("tie", "The fox was old.", "The fox was old.")
    scores = MaskedEngine(tiny_bert(len(tokenizer)), tokenizer, 64).score([same, *items()], no_progress)
    assert scores[0][0] == scores[0][1]


def test_progress_is_told_after_each_batch() -> None:
    tokenizer = tokenizer_with_mask()
    told: list[int] = []
    engine = MaskedEngine(tiny_bert(len(tokenizer)), tokenizer, 64)
    engine.score(items(), lambda done, _: told.append(done))
    assert told == sorted(told)
    assert told[-1] == len(items())
    assert len(set(told)) > 3


def test_positions_behind_the_padding_shorten_the_context() -> None:
    tokenizer = tokenizer_with_mask()
    assert MaskedEngine(tiny_bert(len(tokenizer)), tokenizer).context == 256
    engine = MaskedEngine(tiny_roberta(len(tokenizer)), tokenizer)
    assert engine.context == 254
    long = minimal_pair("long", "fox " * 300, "fox.")
    with pytest.raises(ItemsError, match="does not fit the checkpoint's context of 254"):
        engine.score([long], no_progress)


def test_a_tokenizer_without_a_mask_is_refused() -> None:
    tokenizer = tiny_tokenizer()
    with pytest.raises(CheckpointError, match="no mask token; set mask_token, or backend to causal"):
        MaskedEngine(tiny_gpt2(len(tokenizer)), tokenizer)
