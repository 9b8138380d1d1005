"""Log-probabilities of candidates under a Hugging Face causal language model.

Scores as the BabyLM 2025 evaluation pipeline's causal backend does (`sentence_zero_shot`): the text is tokenised whole,
with the special tokens that the tokenizer adds by itself and none of ours; the first token is never scored; a
candidate's score is the sum, in fp32, of log softmax over its completion's tokens. What we do differently, and why:

1. Candidates that begin alike, of one item or of several, go through the model as one tree: each shared token once.
   A 4-D mask shows every token its own beginning alone, and its position is its depth in the tree.
2. Trees are sorted by size and batched under a token budget instead of 64 items at a time: less padding.
3. The language-model head sees only the places from which a scored token is predicted.
4. Equal token sequences are scored once, so an exact tie stays a tie whatever the batches.

A model that takes no such mask (recurrent ones, sliding windows shorter than a text) gets one sequence a row. Which it
is shows when texts longer than all before are scored: the longest goes through both ways, in fp32, and its
log-probabilities must agree.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from copy import deepcopy
from functools import partial
from math import isclose, isfinite
from typing import Protocol

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from services.evaluator.batching import Encoded, Tree, encode, grouped, token_batches, trees
from services.evaluator.errors import ItemsError
from services.evaluator.forward import Wanted, align_head, halving, join_gelu, log_probabilities
from services.evaluator.items import Item
from services.evaluator.threads import at_once

TOKEN_BUDGET, GPU_TOKEN_BUDGET = 512, 8192
TOLERANCE = 1e-4
_TREE_TOKENS = 1024  # a tree's mask grows with the square of its tokens
_ITEMS_AT_ONCE = 256  # a token's offsets take 20 times the memory of the token

ItemsDone = Callable[[int, int], None]  # (items scored so far, items in all)
LogProbabilities = tuple[float, ...]  # nats, one for each scored position of a sequence


class Scorer(Protocol):
    """Whatever can score items: an engine, or a stand-in with known answers."""

    def score(self, items: Sequence[Item], done: ItemsDone) -> list[tuple[float, ...]]:
        """One log-probability (nats) a candidate, items and candidates in the given order."""


class Engine(ABC):
    """Scores items with one model; dtype and evaluation mode are the loader's business.

    Args:
        model: A language model of the engine's kind.
        tokenizer: A fast tokenizer (character offsets are needed).
        token_budget: Largest padded batch, in tokens. None: 512 on a CPU, where more is slower; 8192 on a GPU.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, token_budget: int | None = None
    ) -> None:
        join_gelu(model)
        align_head(model)
        self._model = model
        self._tokenizer = tokenizer
        self.token_budget = token_budget or (GPU_TOKEN_BUDGET if model.device.type == "cuda" else TOKEN_BUDGET)
        self.context: int | None = getattr(model.config, "max_position_embeddings", None)
        self._fast = True
        self._checked_length = 0

    def lengths(self, items: Sequence[Item]) -> list[int]:
        """Tokens of each item's longest candidate, to be held against `context`."""
        return [max(len(candidate.ids) for candidate in row) for row in self._encode(items)]

    def score(self, items: Sequence[Item], done: ItemsDone) -> list[tuple[float, ...]]:
        """One log-probability (nats) a candidate.

        Raises:
            ItemsError: an item is longer than the model's context, or has a candidate with nothing to score.
            CheckpointError: the device's memory is too small for half a batch.
        """
        encoded = self._encode(items)
        flat = [candidate for row in encoded for candidate in row]
        values = iter(self.token_log_probabilities(flat, lambda part: done(int(part * len(items)), len(items))))
        return [tuple(sum(next(values)) for _ in row) for row in encoded]

    def token_log_probabilities(
        self, sequences: Sequence[Encoded], part_done: Callable[[float], None]
    ) -> list[LogProbabilities]:
        """The log-probability (nats) of every scored token of every sequence.

        Args:
            sequences: In any order; equal ones are scored once, and those that begin alike share the work.
            part_done: Told the share of the work that is done, 0..1, after each batch.

        Raises:
            ItemsError: a sequence is longer than the model's context.
            CheckpointError: the device's memory is too small for half a batch.
        """
        unique = list(grouped(sequences))
        longest = max((len(sequence.ids) for sequence in unique), default=0)
        if self.context is not None and longest > self.context:
            raise ItemsError(f"an item of {longest} tokens does not fit the checkpoint's context of {self.context}")
        found: dict[Encoded, LogProbabilities] = {}
        with torch.inference_mode():
            if self._fast and longest > self._checked_length:
                self._fast, self._checked_length = self._agrees(_samples(unique)), longest
            with closing(self._run(self._model, unique, fast=self._fast)) as answers:
                for index, values in answers:
                    if not all(isfinite(value) for value in values):
                        raise ItemsError(
                            "the checkpoint gives log-probabilities that are not finite; take an earlier one"
                        )
                    found[unique[index]] = values
                    part_done(len(found) / len(unique))
        return [found[sequence] for sequence in sequences]

    @abstractmethod
    def _mark(self, ids: Sequence[int], offsets: Sequence[tuple[int, int]], completion_start: int) -> Encoded:
        """A text's tokens, those that are to be scored marked."""

    @abstractmethod
    def _run(
        self, model: PreTrainedModel, sequences: Sequence[Encoded], *, fast: bool
    ) -> Generator[tuple[int, LogProbabilities]]:
        """Index and log-probabilities of each sequence, batch by batch; without `fast`, in the plainest way."""

    def _agrees(self, sequences: Sequence[Encoded]) -> bool:
        """Whether the fast way gives what the plain one gives, within TOLERANCE in fp32."""
        fp32 = self._model if self._model.dtype == torch.float32 else deepcopy(self._model).float()
        plain = dict(self._run(fp32, sequences, fast=False))
        try:
            fast = dict(self._run(fp32, sequences, fast=True))
        except torch.OutOfMemoryError:
            raise
        except (TypeError, ValueError, RuntimeError, IndexError, AttributeError):
            return False  # what a model does with arguments that are not made for it
        pairs = [pair for i in plain for pair in zip(plain[i], fast[i], strict=True)]
        return all(isclose(a, b, rel_tol=TOLERANCE, abs_tol=TOLERANCE) for a, b in pairs)

    def _encode(self, items: Sequence[Item]) -> list[tuple[Encoded, ...]]:
        encoded: list[tuple[Encoded, ...]] = []
        for start in range(0, len(items), _ITEMS_AT_ONCE):
            encoded += self._encode_some(items[start : start + _ITEMS_AT_ONCE])
        return encoded

    def _encode_some(self, items: Sequence[Item]) -> list[tuple[Encoded, ...]]:
        candidates = [candidate for item in items for candidate in item.candidates]
        batch = self._tokenizer([c.text for c in candidates], return_offsets_mapping=True, verbose=False)
        rows = zip(batch["input_ids"], batch["offset_mapping"], candidates, strict=True)
        flat = iter([self._mark(ids, offsets, len(candidate.context)) for ids, offsets, candidate in rows])
        encoded = [tuple(next(flat) for _ in item.candidates) for item in items]
        for item, row in zip(items, encoded, strict=True):
            for candidate, tokens in zip(item.candidates, row, strict=True):
                if not tokens.scored:
                    raise ItemsError(
                        f"{item.uid}: candidate {candidate.text!r} has no token that could be scored (the first token "
                        "of a text has no prediction); leave the item out"
                    )
        return encoded


class LogProbabilityEngine(Engine):
    """Scores items with a causal language model."""

    def _mark(self, ids: Sequence[int], offsets: Sequence[tuple[int, int]], completion_start: int) -> Encoded:
        return encode(ids, offsets, completion_start)

    def _run(
        self, model: PreTrainedModel, sequences: Sequence[Encoded], *, fast: bool
    ) -> Generator[tuple[int, LogProbabilities]]:
        if fast:
            rows = trees(sequences, min(self.token_budget, _TREE_TOKENS))
        else:
            rows = [_alone(index, sequence) for index, sequence in enumerate(sequences)]
        forward = partial(_forward, model, sequences, as_trees=fast)
        batches = [
            [rows[i] for i in batch] for batch in token_batches([len(row.ids) for row in rows], self.token_budget)
        ]
        for batch in at_once(model, batches, partial(halving, run=forward)):
            for found in batch:
                yield from found.items()


def _alone(index: int, sequence: Encoded) -> Tree:
    inputs = range(len(sequence.ids) - 1)
    return Tree(sequence.ids[:-1], tuple(inputs), (index,), (tuple(inputs),))


def _forward(
    model: PreTrainedModel, sequences: Sequence[Encoded], rows: Sequence[Tree], *, as_trees: bool
) -> list[dict[int, LogProbabilities]]:
    """Log-probabilities of each row's sequences, by index."""
    width = max(len(row.ids) for row in rows)
    ids_BT = torch.tensor([[*row.ids, *[0] * (width - len(row.ids))] for row in rows], device=model.device)
    wanted: Wanted = [
        (b, path[position - 1], sequences[index].ids[position])
        for b, row in enumerate(rows)
        for index, path in zip(row.members, row.paths, strict=True)
        for position in sequences[index].scored
    ]
    if as_trees:
        depths_BT = torch.tensor([[*row.depths, *[0] * (width - len(row.ids))] for row in rows], device=model.device)
        hidden_BTT = ~torch.stack([visible(row, width) for row in rows]).to(model.device)
        mask_B1TT = torch.zeros(hidden_BTT.shape, dtype=model.dtype, device=model.device)
        mask_B1TT = mask_B1TT.masked_fill(hidden_BTT, torch.finfo(model.dtype).min)[:, None]
        flat = log_probabilities(
            model,
            wanted,
            whole=False,
            input_ids=ids_BT,
            attention_mask=mask_B1TT,
            position_ids=depths_BT,
            use_cache=False,
        )
    else:
        mask_BT = torch.tensor([[1] * len(row.ids) + [0] * (width - len(row.ids)) for row in rows], device=model.device)
        flat = log_probabilities(model, wanted, whole=True, input_ids=ids_BT, attention_mask=mask_BT, use_cache=False)
    values = iter(flat)
    return [{index: tuple(next(values) for _ in sequences[index].scored) for index in row.members} for row in rows]


def visible(tree: Tree, width: int) -> torch.Tensor:
    """Which nodes each node may attend to: its own beginning and itself. Boolean, shape (width, width).

    Padding sees itself alone, so that no row of attention is empty.
    """
    seen_TT = torch.eye(width, dtype=torch.bool)
    done = 0
    for path in tree.paths:
        path_T = torch.tensor(path)
        fresh = int((path_T >= done).sum())  # new nodes stand together, at the end of the path
        block_TT = torch.ones((fresh, len(path)), dtype=torch.bool).tril(len(path) - fresh)
        seen_TT[done : done + fresh, path_T] = block_TT
        done += fresh
    return seen_TT


def _samples(sequences: Iterable[Encoded]) -> list[Encoded]:
    """The longest sequence, the one that shares most with it, and the shortest: what shows whether trees work."""
    ordered = sorted(sequences, key=lambda sequence: sequence.ids)
    at = max(range(len(ordered)), key=lambda i: len(ordered[i].ids))
    return list(dict.fromkeys([*ordered[max(0, at - 1) : at + 2], min(ordered, key=lambda s: len(s.ids))]))
