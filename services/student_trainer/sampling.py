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
_BLOCK = 128  # tokens whose probabilities are summed at once; about the square root of a vocabulary
_BELOW_ONE = 1.0 - 2.0**-50


def story_uniforms(seed: int, step: int, indices: Sequence[int], length: int) -> Tensor:
    """Uniform numbers in [0, 1) for the stories `indices` of step `step`, shape [B, length], float64."""
    rows = []
    for index in indices:
        key = np.array([seed & _MASK_64, (step << 32 | index) & _MASK_64], dtype=np.uint64)
        rows.append(np.random.Generator(np.random.Philox(key=key)).random(length))
    return torch.from_numpy(np.stack(rows))


def draw_tokens(logits_BV: Tensor, uniforms_B: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Token ids [B] and their log-probabilities [B], in nats and float32; NaN where the logits are not finite.

    A token is the inverse of softmax(logits / temperature)'s cumulative distribution at its row's uniform, so one of
    probability zero is never drawn. Only the block of tokens that the uniform falls into is summed token by token: a
    cumulative sum over the whole vocabulary costs as much as its softmax. Blocks are accumulated in float64.
    """
    logits_BV = logits_BV.float() if temperature == 1.0 else logits_BV.float() / temperature
    rows, vocabulary = logits_BV.shape
    top_B1 = logits_BV.amax(dim=-1, keepdim=True)
    weights_BV = (logits_BV - top_B1).exp_()
    if missing := -vocabulary % _BLOCK:
        weights_BV = torch.nn.functional.pad(weights_BV, (0, missing))
    weights_NW = weights_BV.view(-1, _BLOCK)
    blocks = len(weights_NW) // rows
    until_BK = torch.nn.functional.pad(
        weights_NW.sum(dim=-1).view(rows, blocks).cumsum(-1, dtype=torch.float64), (1, 0)
    )
    total_B1 = until_BK[:, -1:]
    threshold_B1 = uniforms_B[:, None] * total_B1
    # NaN exceeds nothing: it would be found past the last block, and past the last token.
    block_B1 = (torch.searchsorted(until_BK, threshold_B1, right=True) - 1).clamp_(max=blocks - 1)
    first_B = torch.arange(0, len(weights_NW), blocks, device=logits_BV.device)
    inside_BW = weights_NW.index_select(0, first_B + block_B1.squeeze(-1)).cumsum(-1, dtype=torch.float64)
    # The block's own sum may come out a little smaller than its share above; a token of probability zero would follow.
    rest_B1 = torch.minimum(threshold_B1 - until_BK.gather(1, block_B1), inside_BW[:, -1:] * _BELOW_ONE)
    place_B1 = torch.searchsorted(inside_BW, rest_B1, right=True)
    token_B1 = torch.add(place_B1, block_B1, alpha=_BLOCK).clamp_(max=vocabulary - 1)
    logprobs_B1 = (logits_BV.gather(1, token_B1) - top_B1 - total_B1.log()).float()
    return token_B1.squeeze(-1), logprobs_B1.squeeze(-1)


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
        picked_B, _ = draw_tokens(scores, self.uniforms_BT[:, position].to(scores.device), self.temperature)
        forced = torch.full_like(scores, float("-inf"))
        return cast(torch.FloatTensor, forced.scatter_(1, picked_B[:, None], 0.0))
