"""PPO's losses (Schulman et al. 2017, arXiv 1707.06347), as TRL 0.9.4 computes them. Pure.

Each function returns terms [B, T]; the caller takes the mean over response tokens, which lets a batch be split into
micro-batches without changing the result.
"""

import torch
from torch import Tensor


def policy_loss_terms(ratio_BT: Tensor, advantages_BT: Tensor, clip: float) -> Tensor:
    """Clipped surrogate: `max(-A * ratio, -A * clamp(ratio, 1 - clip, 1 + clip))`."""
    return torch.max(-advantages_BT * ratio_BT, -advantages_BT * ratio_BT.clamp(1.0 - clip, 1.0 + clip))


def value_loss_terms(values_BT: Tensor, old_values_BT: Tensor, returns_BT: Tensor, clip: float) -> Tensor:
    """Clipped value loss: `0.5 * max((V - R)^2, (clip(V, V_old - c, V_old + c) - R)^2)`."""
    clipped_BT = torch.max(torch.min(values_BT, old_values_BT + clip), old_values_BT - clip)
    return 0.5 * torch.max((values_BT - returns_BT) ** 2, (clipped_BT - returns_BT) ** 2)
