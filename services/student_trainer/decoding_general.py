"""Decoding steps of any causal language model of transformers, by its own forward pass."""

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from services.student_trainer.decoding_prompts import Prompts


class GeneralSteps:
    """The next token's logits, one token a row and call; rows can be dropped."""

    def __init__(self, model: PreTrainedModel, prompts: Prompts, cache: DynamicCache) -> None:
        if prompts.shared:
            cache.batch_repeat_interleave(len(prompts))
        self.model = model
        self.cache = cache
        gap_BP = prompts.gap_BP
        # Where all prompts are equally long the model counts positions by itself, from the cache's length.
        self.positions_N = None if gap_BP is None else prompts.lengths_B
        self.seen_NS = torch.ones_like(prompts.ids_BP) if gap_BP is None else (~gap_BP).long()

    def __call__(self, tokens_N: Tensor) -> Tensor:
        """Logits [N, V] after `tokens_N`."""
        self.seen_NS = torch.nn.functional.pad(self.seen_NS, (0, 1), value=1)
        positions = {} if self.positions_N is None else {"position_ids": self.positions_N[:, None]}
        output = self.model(
            tokens_N[:, None], attention_mask=self.seen_NS, past_key_values=self.cache, use_cache=True, **positions
        )
        if self.positions_N is not None:
            self.positions_N = self.positions_N + 1
        logits_NV: Tensor = output.logits[:, -1]
        return logits_NV

    def keep(self, rows_N: Tensor) -> None:
        """Go on with these rows, in this order."""
        self.cache.batch_select_indices(rows_N)
        self.seen_NS = self.seen_NS[rows_N]
        if self.positions_N is not None:
            self.positions_N = self.positions_N[rows_N]
