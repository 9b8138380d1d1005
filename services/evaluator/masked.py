"""Pseudo-log-probabilities of candidates under a Hugging Face masked language model.

Scores as the BabyLM 2025 evaluation pipeline's `mlm` and `mntp` backends do (`sentence_zero_shot`): each token of the
completion is masked in turn, one copy of the text for each, and its log softmax read at its own place (`mlm`) or at
the place before it (`mntp`, masked next-token prediction); a candidate's score is their sum. Other than for causal
models the completion begins where its first character stands, wherever the first token does. What we do differently:

1. Copies are sorted by length and batched under a token budget; equal ones (two sentences with the differing word
   masked) go through the model once.
2. The language-model head sees the masked places only.
3. With `mntp` a text's first token is never scored. The pipeline scores it where the tokenizer knows a token for
   beginnings but does not put it there, and takes the prediction from the last place of the padded batch.
"""

from collections import defaultdict
from collections.abc import Generator, Sequence
from functools import partial

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from services.evaluator.batching import Encoded, encode_masked, token_batches
from services.evaluator.engine import Engine, LogProbabilities
from services.evaluator.errors import CheckpointError
from services.evaluator.forward import Wanted, halving, log_probabilities
from services.evaluator.threads import at_once

_SEQUENCES_AT_ONCE = 256  # their copies are made together: a copy for each scored token

Copy = tuple[tuple[int, ...], int]  # a text's tokens, one of them masked, and which
Scored = tuple[int, int]  # a sequence's index and which of its scored tokens


class MaskedEngine(Engine):
    """Scores items with a masked language model.

    Args:
        model: A masked language model.
        tokenizer: A fast tokenizer with a mask token.
        token_budget: As Engine has it.
        shifted: A token is predicted at the place before it (`mntp`), not at its own (`mlm`).

    Raises:
        CheckpointError: the tokenizer has no mask token.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        token_budget: int | None = None,
        *,
        shifted: bool = False,
    ) -> None:
        super().__init__(model, tokenizer, token_budget)
        if not isinstance(tokenizer.mask_token_id, int):
            raise CheckpointError("the checkpoint's tokenizer has no mask token; set mask_token, or backend to causal")
        self._mask_id = tokenizer.mask_token_id
        known = (tokenizer.pad_token_id, tokenizer.cls_token_id)
        self._pad_id = next((token for token in known if isinstance(token, int)), 0)
        self._shift = int(shifted)
        for name, module in model.named_modules():
            # Positions of RoBERTa and its kin are counted from behind the padding's.
            if name.endswith("position_embeddings") and isinstance(module, nn.Embedding) and module.padding_idx:
                self.context = module.num_embeddings - module.padding_idx - 1

    def _mark(self, ids: Sequence[int], offsets: Sequence[tuple[int, int]], completion_start: int) -> Encoded:
        return encode_masked(ids, offsets, completion_start, self._shift)

    def _run(
        self, model: PreTrainedModel, sequences: Sequence[Encoded], *, fast: bool
    ) -> Generator[tuple[int, LogProbabilities]]:
        order = sorted(range(len(sequences)), key=lambda i: -len(sequences[i].ids))
        for start in range(0, len(order), _SEQUENCES_AT_ONCE):
            yield from self._run_some(model, sequences, order[start : start + _SEQUENCES_AT_ONCE], fast)

    def _run_some(
        self, model: PreTrainedModel, sequences: Sequence[Encoded], chosen: Sequence[int], fast: bool
    ) -> Generator[tuple[int, LogProbabilities]]:
        asked: defaultdict[Copy, list[Scored]] = defaultdict(list)
        for index in chosen:
            ids = sequences[index].ids
            for k, position in enumerate(sequences[index].scored):
                asked[(*ids[:position], self._mask_id, *ids[position + 1 :]), position].append((index, k))
        copies = list(asked)
        values: dict[Scored, float] = {}
        missing = {index: len(sequences[index].scored) for index in chosen}

        def run(batch: list[Copy]) -> list[tuple[Scored, float]]:
            places = [scored for copy in batch for scored in asked[copy]]
            wanted = [
                (row, position - self._shift, sequences[index].ids[position])
                for row, (ids, position) in enumerate(batch)
                for index, _ in asked[ids, position]
            ]
            return list(zip(places, self._forward(model, batch, wanted, fast), strict=True))

        batches = [
            [copies[i] for i in batch] for batch in token_batches([len(c[0]) for c in copies], self.token_budget)
        ]
        for batch in at_once(model, batches, partial(halving, run=run)):
            for (index, k), value in batch:
                values[index, k] = value
                missing[index] -= 1
                if not missing[index]:
                    yield index, tuple(values.pop((index, k)) for k in range(len(sequences[index].scored)))

    def _forward(self, model: PreTrainedModel, batch: Sequence[Copy], wanted: Wanted, fast: bool) -> list[float]:
        lengths = [len(ids) for ids, _ in batch]
        width = max(lengths)
        ids_BT = torch.tensor([[*ids, *[self._pad_id] * (width - len(ids))] for ids, _ in batch], device=model.device)
        mask_BT = torch.tensor([[1] * n + [0] * (width - n) for n in lengths], device=model.device)
        return log_probabilities(model, wanted, whole=not fast, input_ids=ids_BT, attention_mask=mask_BT)
