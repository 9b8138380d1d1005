"""PPO's losses (Schulman et al. 2017, arXiv 1707.06347), as TRL 0.9.4 computes them, and importance weights. Pure.

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


def importance_weights(logprobs_BT: Tensor, behaviour_BT: Tensor, mask_BT: Tensor, *, whole_story: bool) -> Tensor:
    """How much likelier the policy finds what another one wrote, [B, T], 1 outside the mask.

    A token's weight is the ratio of its probabilities, `pi_prox / pi_behav` in AReaL's decoupled objective (arXiv
    2505.24298, after Hilton et al. 2021, arXiv 2110.00641). With `whole_story` every token has its story's, the
    product of them: for losses to which a story is one action.
    """
    log_weights_BT = (logprobs_BT - behaviour_BT) * mask_BT
    if whole_story:
        log_weights_BT = log_weights_BT.sum(dim=1, keepdim=True) * mask_BT
    return log_weights_BT.exp()
