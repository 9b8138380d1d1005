"""REINFORCE++.

Source: Hu et al. 2025 (arXiv 2501.03262): PPO without a critic. The reward stands at the story's last token, minus
coefficient * KL at every token; a token's advantage is the (discounted) sum from there on, normalised over all tokens
of the batch; the loss is PPO's clipped surrogate, averaged over tokens. What we do differently:

1. The standard deviation is unbiased, as in our PPO's whitening.
2. Stories without a usable verdict are in no loss and in no normalisation. Where all advantages are equal they are
   exactly 0, and a pass without any gradient takes no step.
3. Rewards are neither clipped nor scaled beforehand: ours are in 0..1.
4. The paper's variant with a group's mean as baseline is left out: all stories continue one prompt, so that the mean of
   the group is the mean of the batch, which normalisation takes off anyway.
5. Where an earlier policy wrote (lag > 0), the loss is multiplied by each token's importance weight: the decoupled
   objective (AReaL, arXiv 2505.24298).
"""

from dataclasses import dataclass, replace

import torch

from services.student_trainer.advantages import gae, masked_whiten
from services.student_trainer.algorithms.experience import Experience, JudgedStories, LossTerms, Passes, score_stories
from services.student_trainer.learning_settings import KLEstimator, ReinforcePlusPlusSettings
from services.student_trainer.losses import policy_loss_terms
from services.student_trainer.policy import Policy, TokenScores
from services.student_trainer.rewards import token_rewards


@dataclass(frozen=True)
class ReinforcePlusPlus:
    """See the module."""

    settings: ReinforcePlusPlusSettings
    estimator: KLEstimator
    section = "reinforce_plus_plus"
    needs_value_head = False

    @property
    def passes(self) -> Passes:
        """One or several over the batch, within the ratio clip."""
        s = self.settings
        return Passes(s.epochs, s.minibatch_size, s.ratio_clip, s.ratio_threshold)

    def gather(self, policy: Policy, stories: JudgedStories, kl_coefficient: float, temperature: float) -> Experience:
        """See Algorithm. The KL penalty is in the token rewards."""
        scored = score_stories(policy, stories, kl_coefficient, temperature, self)
        mask_BT = scored.mask_RT
        rewards_BT = token_rewards(
            stories.rewards_B, scored.logprobs_RT, scored.reference_RT, mask_BT, kl_coefficient, self.estimator
        )
        # With every value 0 and lambda 1, GAE is the discounted sum of the rewards to come.
        sums_BT, _ = gae(rewards_BT, torch.zeros_like(rewards_BT), mask_BT, self.settings.gamma, 1.0)
        chosen_N = sums_BT[mask_BT > 0]
        differ = bool(chosen_N.max() != chosen_N.min())  # rounding over equal ones must not be whitened into noise
        return replace(scored, advantages_RT=masked_whiten(sums_BT, mask_BT) if differ else scored.advantages_RT)

    def loss(self, scores: TokenScores, seen: Experience) -> LossTerms:
        """Clipped surrogate."""
        ratio_RT = (scores.logprobs_BT - seen.logprobs_RT).exp()
        return LossTerms(policy_loss_terms(ratio_RT, seen.advantages_RT, self.settings.ratio_clip))
