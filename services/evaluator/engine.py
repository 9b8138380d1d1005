"""Log-probabilities of candidates under a Hugging Face causal language model.

Scores as the BabyLM 2025 evaluation pipeline's causal backend does (`sentence_zero_shot`): the text is tokenised whole,
with the special tokens that the tokenizer adds by itself and none of ours; the first token is never scored; a
candidate's score is the sum, in fp32, of log softmax over its completion's tokens. What we do differently, and why:

1. Sentences are sorted by length and batched under a token budget instead of 64 items at a time: less padding.
2. Where candidates share 32 tokens or more (entity tracking), the prefix goes through the model once for all of them,
   in batches of items whose prefix has the same length, so that nothing is padded on the left.
3. Equal token sequences are scored once, so an exact tie stays a tie whatever the batches.
"""

from collections.abc import Callable, Iterator, Sequence
from math import isfinite
from typing import Any, Protocol

import torch
from torch.nn.functional import cross_entropy
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from services.evaluator.batching import Encoded, encode, grouped, shared_prefix, token_batches
from services.evaluator.errors import ItemsError
from services.evaluator.items import Item

TOKEN_BUDGET = 1024
MINIMUM_SHARED_PREFIX = 32
_ITEMS_AT_ONCE = 256  # a token's offsets take 20 times the memory of the token
_IGNORED = -100  # cross_entropy's mark for a target that is not scored

ItemsDone = Callable[[int, int], None]  # (items scored so far, items in all)


class Scorer(Protocol):
    """Whatever can score items: the engine, or a stand-in with known answers."""

    def score(self, items: Sequence[Item], done: ItemsDone) -> list[tuple[float, ...]]:
        """One log-probability (nats) a candidate, items and candidates in the given order."""


class LogProbabilityEngine:
    """Scores items with one model; fp32 and evaluation mode are the loader's business.

    Args:
        model: A causal language model.
        tokenizer: A fast tokenizer (character offsets are needed).
        token_budget: Largest padded batch, in tokens; 512 to 1024 is best on a CPU.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, token_budget: int = TOKEN_BUDGET
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._budget = token_budget
        self.context: int | None = getattr(model.config, "max_position_embeddings", None)
        self._shares_prefixes = True

    def lengths(self, items: Sequence[Item]) -> list[int]:
        """Tokens of each item's longest candidate, to be held against `context`."""
        return [max(len(candidate.ids) for candidate in row) for row in self._encode(items)]

    def score(self, items: Sequence[Item], done: ItemsDone) -> list[tuple[float, ...]]:
        """One log-probability (nats) a candidate.

        Raises:
            ItemsError: an item is longer than the model's context, or has a candidate with nothing to score.
        """
        encoded = self._encode(items)
        longest = max((len(candidate.ids) for row in encoded for candidate in row), default=0)
        if self.context is not None and longest > self.context:
            raise ItemsError(f"an item of {longest} tokens does not fit the checkpoint's context of {self.context}")
        prefixes = [shared_prefix(candidates) - 1 for candidates in encoded]
        shared = [i for i, length in enumerate(prefixes) if length >= MINIMUM_SHARED_PREFIX and self._shares_prefixes]
        whole = sorted(set(range(len(items))) - set(shared))
        scores: dict[int, tuple[float, ...]] = {}
        with torch.inference_mode():
            for index, values in self._score_shared(encoded, prefixes, shared):
                scores[index] = values
                done(len(scores), len(items))
            unsupported = sorted(set(shared) - set(scores))
            base = len(scores)
            whole = sorted([*whole, *unsupported])
            values_of = self._score_whole(
                [encoded[i] for i in whole], lambda part: done(base + int(part * len(whole)), len(items))
            )
        scores.update(zip(whole, values_of, strict=True))
        if not all(isfinite(value) for row in scores.values() for value in row):
            raise ItemsError("the checkpoint gives log-probabilities that are not finite; take an earlier checkpoint")
        return [scores[i] for i in range(len(items))]

    def _encode(self, items: Sequence[Item]) -> list[tuple[Encoded, ...]]:
        encoded: list[tuple[Encoded, ...]] = []
        for start in range(0, len(items), _ITEMS_AT_ONCE):
            encoded += self._encode_some(items[start : start + _ITEMS_AT_ONCE])
        return encoded

    def _encode_some(self, items: Sequence[Item]) -> list[tuple[Encoded, ...]]:
        candidates = [candidate for item in items for candidate in item.candidates]
        batch = self._tokenizer([c.text for c in candidates], return_offsets_mapping=True, verbose=False)
        rows = zip(batch["input_ids"], batch["offset_mapping"], candidates, strict=True)
        flat = iter([encode(ids, offsets, len(candidate.context)) for ids, offsets, candidate in rows])
        encoded = [tuple(next(flat) for _ in item.candidates) for item in items]
        for item, row in zip(items, encoded, strict=True):
            for candidate, tokens in zip(item.candidates, row, strict=True):
                if not tokens.scored:
                    raise ItemsError(
                        f"{item.uid}: candidate {candidate.text!r} has no token that could be scored (the first token "
                        "of a text has no prediction); leave the item out"
                    )
        return encoded

    def _score_whole(
        self, encoded: Sequence[tuple[Encoded, ...]], part_done: Callable[[float], None]
    ) -> list[tuple[float, ...]]:
        """Each distinct candidate in full, right-padded; `part_done` is told the share of sequences scored, 0..1."""
        unique = list(grouped([candidate for row in encoded for candidate in row]))
        scores: dict[Encoded, float] = {}
        for batch in token_batches([len(sequence.ids) for sequence in unique], self._budget):
            sequences = [unique[i] for i in batch]
            inputs_BT, targets_BT = self._padded(sequences, 0)
            mask_BT = _mask([len(s.ids) - 1 for s in sequences], inputs_BT)
            logits_BTV = self._model(input_ids=inputs_BT, attention_mask=mask_BT, use_cache=False).logits
            scores.update(zip(sequences, _summed(logits_BTV, targets_BT), strict=True))
            part_done(len(scores) / len(unique))
        return [tuple(scores[candidate] for candidate in row) for row in encoded]

    def _score_shared(
        self, encoded: Sequence[tuple[Encoded, ...]], prefixes: Sequence[int], indices: Sequence[int]
    ) -> Iterator[tuple[int, tuple[float, ...]]]:
        """Items whose candidates share a prefix; yields nothing more once the model turns out to keep no such cache."""
        groups = grouped([(prefixes[i], len(encoded[i])) for i in indices])
        for prefix, options in sorted(groups, reverse=True):
            members = [indices[k] for k in groups[prefix, options]]
            sizes = [max(prefix, options * max(len(c.ids) - prefix for c in encoded[i])) for i in members]
            for batch in token_batches(sizes, self._budget):
                rows = [encoded[members[k]] for k in batch]
                values = self._score_prefix_batch(rows, prefix)
                if values is None:
                    self._shares_prefixes = False
                    return
                yield from zip([members[k] for k in batch], values, strict=True)

    def _score_prefix_batch(self, rows: list[tuple[Encoded, ...]], prefix: int) -> list[tuple[float, ...]] | None:
        """Scores of items (I rows of O candidates) whose first `prefix` tokens are equal within each item.

        The last shared token goes with the suffixes: its logits predict the first token that differs.
        """
        options = len(rows[0])
        prefix_IT = torch.tensor([row[0].ids[:prefix] for row in rows], device=self._model.device)
        output = self._model.base_model(input_ids=prefix_IT, attention_mask=torch.ones_like(prefix_IT), use_cache=True)
        cache: Any = getattr(output, "past_key_values", None)
        if not isinstance(cache, DynamicCache):
            return None
        cache.batch_repeat_interleave(options)
        sequences = [candidate for row in rows for candidate in row]
        inputs_BT, targets_BT = self._padded(sequences, prefix)
        mask_BT = _mask([len(s.ids) - 1 - prefix for s in sequences], inputs_BT)
        whole_mask = torch.cat([mask_BT.new_ones(len(sequences), prefix), mask_BT], dim=1)
        logits_BTV = self._model(
            input_ids=inputs_BT, attention_mask=whole_mask, past_key_values=cache, use_cache=True
        ).logits
        flat = _summed(logits_BTV, targets_BT)
        return [tuple(flat[start : start + options]) for start in range(0, len(flat), options)]

    def _padded(self, sequences: Sequence[Encoded], start: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs from position `start` on and their targets, both (B, T) and right-padded; unscored targets ignored."""
        longest = max(len(sequence.ids) for sequence in sequences) - 1 - start
        inputs_BT = torch.zeros((len(sequences), longest), dtype=torch.long)
        targets_BT = torch.full((len(sequences), longest), _IGNORED, dtype=torch.long)
        for b, sequence in enumerate(sequences):
            inputs_BT[b, : len(sequence.ids) - 1 - start] = torch.tensor(sequence.ids[start:-1])
            scored = torch.tensor(sequence.scored)
            targets_BT[b, scored - 1 - start] = torch.tensor(sequence.ids)[scored]
        return inputs_BT.to(self._model.device), targets_BT.to(self._model.device)


def _mask(lengths: Sequence[int], inputs_BT: torch.Tensor) -> torch.Tensor:
    """1 at the first `lengths[b]` positions of row b, else 0; shape and device of `inputs_BT`."""
    lengths_B = torch.tensor(lengths, device=inputs_BT.device)
    return (torch.arange(inputs_BT.shape[1], device=inputs_BT.device) < lengths_B[:, None]).long()


def _summed(logits_BTV: torch.Tensor, targets_BT: torch.Tensor) -> list[float]:
    """Sum over T of the targets' log-probabilities, length B; ignored targets add 0."""
    losses = cross_entropy(logits_BTV.flatten(0, 1).float(), targets_BT.flatten(), reduction="none")
    sums: list[float] = (-losses.view_as(targets_BT).sum(dim=1)).tolist()
    return sums
