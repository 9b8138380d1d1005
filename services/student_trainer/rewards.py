"""From verdicts to token rewards. Pure; shapes in names."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from fabula_proto import Verdict, VerdictStatus


def story_reward(teacher_reward: float, words: int, max_new_tokens: int, length_weight: float) -> float:
    """A story's reward, arXiv 2509.15714: `(t + w_l * words / max_new_tokens) / (1 + w_l)`.

    Args:
        teacher_reward: t, the teacher's weighted criteria scaled to 0..1.
        words: whitespace words the student wrote.
        max_new_tokens: length limit in tokens (90 in the paper, which divides words by it).
        length_weight: w_l, 0.4 in the paper.
    """
    return (teacher_reward + length_weight * words / max_new_tokens) / (1.0 + length_weight)


def usable_reward(verdict: Verdict) -> float | None:
    """The teacher's reward in 0..1 where the verdict may be learned from; none for failed, refused or not finite."""
    if verdict.status is not VerdictStatus.OK or verdict.reward is None or not math.isfinite(verdict.reward):
        return None
    return verdict.reward


def story_rewards(
    verdicts: Sequence[Verdict], words: Sequence[int], max_new_tokens: int, length_weight: float
) -> tuple[Tensor, Tensor]:
    """Rewards [B] and a mask [B] that is 0 where no verdict can be learned from; a reward there means nothing."""
    given = [usable_reward(verdict) for verdict in verdicts]
    rewards = [
        0.0 if reward is None else story_reward(reward, count, max_new_tokens, length_weight)
        for reward, count in zip(given, words, strict=True)
    ]
    return torch.tensor(rewards), torch.tensor([0.0 if reward is None else 1.0 for reward in given])


def token_rewards(
    story_rewards_B: Tensor, logprobs_BT: Tensor, reference_logprobs_BT: Tensor, mask_BT: Tensor, kl_coefficient: float
) -> Tensor:
    """Rewards [B, T]: minus the KL penalty (k1, logp - reference logp) at every token, the story's at its last one."""
    penalty_BT = -kl_coefficient * (logprobs_BT - reference_logprobs_BT) * mask_BT
    last_B = mask_BT.sum(dim=1).long() - 1
    at_end_BT = torch.zeros_like(penalty_BT)
    at_end_BT[torch.arange(len(last_B)), last_B.clamp(min=0)] = story_rewards_B.to(penalty_BT)
    return penalty_BT + at_end_BT * mask_BT


class KLController:
    """Adaptive KL coefficient of Ziegler et al. 2019 (arXiv 1909.08593, section 2.2), as in TRL 0.9.4, with a floor."""

    def __init__(self, coefficient: float, *, adaptive: bool, target: float, horizon: int, floor: float = 0.0) -> None:
        self.coefficient = coefficient
        self.adaptive = adaptive
        self.target = target
        self.horizon = horizon
        self.floor = floor

    def update(self, kl: float, stories: int) -> None:
        """After an update: `kl` in nats per story, `stories` in the batch."""
        if self.adaptive:
            error = min(max(kl / self.target - 1.0, -0.2), 0.2)
            self.coefficient = max(self.floor, self.coefficient * (1.0 + error * stories / self.horizon))
