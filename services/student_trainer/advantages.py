"""Generalised advantage estimation (Schulman et al. 2016, arXiv 1506.02438) and masked statistics. Pure."""

import torch
from torch import Tensor

WHITEN_EPSILON = 1e-8


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over positions where mask is 1.

    Raises:
        ValueError: the mask is empty; a mean over nothing is no number.
    """
    count = mask.sum()
    if not count > 0:
        raise ValueError("masked_mean over an empty mask; leave such a batch out")
    return (values * mask).sum() / count


def masked_whiten(values: Tensor, mask: Tensor) -> Tensor:
    """Zero mean and unit variance (unbiased) over the mask; elsewhere 0.

    Over a single position the variance is undefined: the result is 0 there.
    """
    mean = masked_mean(values, mask)
    count = mask.sum()
    if count < 2:
        return torch.zeros_like(values)
    variance = (((values - mean) * mask) ** 2).sum() / (count - 1)
    return (values - mean) * torch.rsqrt(variance + WHITEN_EPSILON) * mask


def gae(
    rewards_BT: Tensor, values_BT: Tensor, mask_BT: Tensor, gamma: float, gae_lambda: float
) -> tuple[Tensor, Tensor]:
    """Advantages and returns, both [B, T], 0 outside the mask.

    `delta_t = r_t + gamma * V_{t+1} - V_t`, `A_t = delta_t + gamma * lambda * A_{t+1}`, `R_t = A_t + V_t`. The value
    after a story's last token is 0, for stories that were cut off too, as in the paper's code: the episode is the story
    as judged. Nothing leaks from padding, which stands to the right.
    """
    rewards_BT, values_BT = rewards_BT * mask_BT, values_BT * mask_BT
    advantages_BT = torch.zeros_like(rewards_BT)
    next_advantage_B = torch.zeros_like(rewards_BT[:, 0])
    next_value_B = torch.zeros_like(next_advantage_B)
    for t in reversed(range(rewards_BT.shape[1])):
        delta_B = rewards_BT[:, t] + gamma * next_value_B - values_BT[:, t]
        next_advantage_B = delta_B + gamma * gae_lambda * next_advantage_B
        advantages_BT[:, t] = next_advantage_B
        next_value_B = values_BT[:, t]
    return advantages_BT * mask_BT, (advantages_BT + values_BT) * mask_BT
