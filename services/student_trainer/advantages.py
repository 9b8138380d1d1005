"""Advantages: GAE (Schulman et al. 2016, arXiv 1506.02438), those of groups, and masked statistics. Pure."""

import torch
from torch import Tensor

WHITEN_EPSILON = 1e-8
GROUP_EPSILON = 1e-4  # TRL's; rewards are in 0..1


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


def leave_one_out(rewards_B: Tensor, usable_B: Tensor, group_size: int) -> Tensor:
    """Advantages [B] of RLOO (Ahmadian et al. 2024, arXiv 2402.14740).

    A story's reward minus the mean reward of the other usable stories of its group, which are `group_size` neighbours.
    """
    rewards_GK, usable_GK = _groups(rewards_B, usable_B, group_size)
    others_G1 = (usable_GK.sum(dim=1, keepdim=True) - 1.0).clamp(min=1.0)
    baseline_GK = (rewards_GK.sum(dim=1, keepdim=True) - rewards_GK) / others_G1
    return _where_rewards_differ(rewards_GK - baseline_GK, rewards_GK, usable_GK)


def group_normalised(rewards_B: Tensor, usable_B: Tensor, group_size: int, *, scale_by_std: bool) -> Tensor:
    """Advantages [B] of GRPO (Shao et al. 2024, arXiv 2402.03300, section 4.1.2).

    A story's reward minus the mean of its group's usable stories, divided by their standard deviation (unbiased, plus
    1e-4, as in TRL). Without `scale_by_std` it is not divided: Dr. GRPO (Liu et al. 2025, arXiv 2503.20783).
    """
    rewards_GK, usable_GK = _groups(rewards_B, usable_B, group_size)
    count_G1 = usable_GK.sum(dim=1, keepdim=True)
    centred_GK = (rewards_GK - rewards_GK.sum(dim=1, keepdim=True) / count_G1.clamp(min=1.0)) * usable_GK
    if scale_by_std:
        variance_G1 = (centred_GK**2).sum(dim=1, keepdim=True) / (count_G1 - 1.0).clamp(min=1.0)
        centred_GK = centred_GK / (variance_G1.sqrt() + GROUP_EPSILON)
    return _where_rewards_differ(centred_GK, rewards_GK, usable_GK)


def _groups(values_B: Tensor, usable_B: Tensor, group_size: int) -> tuple[Tensor, Tensor]:
    """Values, 0 where not usable, and the mask, both [G, K]: G groups of K = `group_size` neighbours."""
    usable_GK = usable_B.reshape(-1, group_size)
    return torch.where(usable_GK > 0, values_B.reshape(-1, group_size), 0.0), usable_GK


def _where_rewards_differ(advantages_GK: Tensor, rewards_GK: Tensor, usable_GK: Tensor) -> Tensor:
    """Advantages [B], exactly 0 for unusable stories and in groups whose usable rewards are equal or a single one.

    Rounding would leave a residue there, which division by a standard deviation of nearly 0 makes large.
    """
    highest_G1 = rewards_GK.masked_fill(usable_GK == 0, -torch.inf).amax(dim=1, keepdim=True)
    lowest_G1 = rewards_GK.masked_fill(usable_GK == 0, torch.inf).amin(dim=1, keepdim=True)
    kept_GK = (highest_G1 != lowest_G1) & (usable_GK > 0)  # NaN differs from itself: it reaches the gradient's check
    return torch.where(kept_GK, advantages_GK, 0.0).reshape(-1)
