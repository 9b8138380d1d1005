"""Random streams for stories, and sampling by inverse CDF.

Story `index` of step `step` always draws the same numbers, whatever batch or process it is written in: its uniforms
come from a Philox counter-based generator (Salmon et al. 2011) keyed by (seed, step, index). Inverse-CDF sampling
turns one uniform into one token and is many times faster than `torch.multinomial` on a CPU.
"""

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor
from transformers import LogitsProcessor

_MASK_64 = (1 << 64) - 1


def story_uniforms(seed: int, step: int, indices: Sequence[int], length: int) -> Tensor:
    """Uniform numbers in [0, 1) for the stories `indices` of step `step`, shape [B, length], float64."""
    rows = []
    for index in indices:
        key = np.array([seed & _MASK_64, (step << 32 | index) & _MASK_64], dtype=np.uint64)
        rows.append(np.random.Generator(np.random.Philox(key=key)).random(length))
    return torch.from_numpy(np.stack(rows))


def pick_tokens(logits_BV: Tensor, uniforms_B: Tensor, temperature: float) -> Tensor:
    """Token ids [B]: the inverse of softmax(logits / temperature)'s cumulative distribution at the uniforms.

    A token of probability zero is never picked.
    """
    cdf_BV = torch.softmax(logits_BV.float() / temperature, dim=-1).cumsum(dim=-1)
    total_B1 = cdf_BV[:, -1:]
    # A uniform just below 1 rounds up in float32; the threshold must stay below the total, or the last token is picked.
    below_total_B1 = torch.nextafter(total_B1, torch.zeros_like(total_B1))
    threshold_B1 = torch.minimum(uniforms_B.to(cdf_BV)[:, None] * total_B1, below_total_B1)
    return torch.searchsorted(cdf_BV, threshold_B1, right=True).squeeze(-1)


class StoryStream(LogitsProcessor):  # type: ignore[no-untyped-call,misc,unused-ignore]
    """Makes plain `model.generate` write the stories that a run recorded.

    It leaves one token possible at each position: the one that the story's own random stream picks. Use it with
    `do_sample=False`:

        stream = StoryStream(uniforms_BT, prompt_tokens)
        generate(**prompts, do_sample=False, max_new_tokens=n, logits_processor=[stream])

    Args:
        uniforms_BT: `story_uniforms(seed, step, indices, max_new_tokens)`.
        prompt_tokens: length of the prompt in tokens.
        temperature: the run's sampling temperature.
    """

    def __init__(self, uniforms_BT: Tensor, prompt_tokens: int, temperature: float = 1.0) -> None:
        self.uniforms_BT = uniforms_BT
        self.prompt_tokens = prompt_tokens
        self.temperature = temperature

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        position = input_ids.shape[1] - self.prompt_tokens
        picked_B = pick_tokens(scores, self.uniforms_BT[:, position].to(scores.device), self.temperature)
        forced = torch.full_like(scores, float("-inf"))
        return cast(torch.FloatTensor, forced.scatter_(1, picked_B[:, None], 0.0))
