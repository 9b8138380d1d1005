"""Prompts before decoding: aligned to the left, read once, with dropout off."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel


@dataclass(frozen=True)
class Prompts:
    """B prompts of at most P tokens, `ids_BP` aligned to the left.

    Stories go on at slot P of the key/value cache whatever their prompt's length; `gap_BP` is True on the slots between
    a shorter prompt's end and P, which nobody may attend to. `gap_BP` is None where all prompts are equally long.
    `shared` says that all prompts are one and the same, so that one row speaks for all.
    """

    ids_BP: Tensor
    lengths_B: Tensor
    gap_BP: Tensor | None
    shared: bool

    @classmethod
    def align(cls, prompts: Sequence[Sequence[int]], device: torch.device) -> "Prompts":
        """Prompts of any lengths.

        Raises:
            ValueError: there is no prompt, or one has no tokens.
        """
        lengths = [len(prompt) for prompt in prompts]
        if not lengths or min(lengths) == 0:
            raise ValueError(f"prompts have {lengths} tokens; expected at least one prompt, and a token in each")
        width = max(lengths)
        ids_BP = torch.tensor([[*prompt, *[0] * (width - len(prompt))] for prompt in prompts], device=device)
        lengths_B = torch.tensor(lengths, device=device)
        gap_BP = torch.arange(width, device=device) >= lengths_B[:, None]
        return cls(
            ids_BP=ids_BP,
            lengths_B=lengths_B,
            gap_BP=gap_BP if min(lengths) < width else None,
            shared=all(list(prompt) == list(prompts[0]) for prompt in prompts),
        )

    def __len__(self) -> int:
        return len(self.ids_BP)

    @property
    def width(self) -> int:
        """P, the longest prompt in tokens."""
        return self.ids_BP.shape[1]

    def read(self, model: PreTrainedModel) -> tuple[DynamicCache, Tensor]:
        """Keys and values of the prompts, and the logits [B, V] of the token that follows each.

        The cache has one row where the prompts are shared, else one a prompt. Padding stands to the right of a prompt,
        where a causal model does not see it.
        """
        cache = DynamicCache(config=model.config)
        shortest = int(self.lengths_B.min())
        output = model(
            self.ids_BP[:1] if self.shared else self.ids_BP,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=self.width - shortest + 1,
        )
        if self.shared:
            return cache, output.logits[:, -1].expand(len(self), -1)
        rows_B = torch.arange(len(self), device=self.lengths_B.device)
        return cache, output.logits[rows_B, self.lengths_B - shortest]


@contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Every module of `model` in evaluation mode, then each as it was."""
    training = [module for module in model.modules() if module.training]
    try:
        for module in training:
            module.training = False
        yield
    finally:
        for module in training:
            module.training = True
