"""Proximal policy optimisation of a storyteller.

Source: Schulman et al. 2017 (arXiv 1707.06347) in the form of TRL 0.9.4's `PPOTrainer.step`, which
arXiv 2509.15714 used. What we do differently:

1. Dropout is off in every forward pass, so the policy that is sampled, scored and trained is one and the same and the
   ratio of the first pass is exactly 1. TRL samples with dropout on from the second batch.
2. A minibatch whose mean ratio exceeds the threshold is skipped as a whole; TRL multiplies its loss by zero and lets
   Adam take a step of pure momentum.
3. Stories without a usable verdict are masked out of every mean, of whitening and of the KL controller's input.
4. A minibatch is computed in micro-batches, sums divided by the minibatch's token count: same gradient, less memory.
5. Entropy is that of the next-token distribution, not minus the sum of sampled log-probabilities.
6. A gradient that is not finite raises before it can reach the weights.
7. Where an earlier policy wrote (lag > 0), the objective is the decoupled one (AReaL, arXiv 2505.24298): the
   policy loss times each token's importance weight, ratio and clip around the policy before the update. KL, values and
   advantages are of that policy as well; the value loss has no weight.
"""

from dataclasses import dataclass, replace

from torch import Tensor

from services.student_trainer.advantages import gae, masked_whiten
from services.student_trainer.algorithms.experience import Experience, JudgedStories, LossTerms, Passes, score_stories
from services.student_trainer.learning_settings import KLEstimator, PPOSettings
from services.student_trainer.losses import policy_loss_terms, value_loss_terms
from services.student_trainer.policy import Policy, TokenScores
from services.student_trainer.rewards import token_rewards


@dataclass(frozen=True)
class PPO:
    """Advantages by GAE on a learned value head, whitened over the batch; clipped policy and value losses."""

    settings: PPOSettings
    estimator: KLEstimator
    section = "ppo"
    needs_value_head = True

    @property
    def passes(self) -> Passes:
        """Several over the batch, within the ratio clip."""
        s = self.settings
        return Passes(s.epochs, s.minibatch_size, s.ratio_clip, s.ratio_threshold)

    def gather(self, policy: Policy, stories: JudgedStories, kl_coefficient: float, temperature: float) -> Experience:
        """See Algorithm. The KL penalty is in the token rewards; returns use advantages before whitening."""
        scored = score_stories(policy, stories, kl_coefficient, temperature, self)
        mask_BT = scored.mask_RT
        rewards_BT = token_rewards(
            stories.rewards_B, scored.logprobs_RT, scored.reference_RT, mask_BT, kl_coefficient, self.estimator
        )
        values_BT = _of_value_head(scored.values_RT)
        advantages_BT, returns_BT = gae(rewards_BT, values_BT, mask_BT, self.settings.gamma, self.settings.gae_lambda)
        return replace(scored, advantages_RT=masked_whiten(advantages_BT, mask_BT), returns_RT=returns_BT)

    def loss(self, scores: TokenScores, seen: Experience) -> LossTerms:
        """Clipped surrogate and clipped value loss."""
        values_RT, old_RT = _of_value_head(scores.values_BT), _of_value_head(seen.values_RT)
        ratio_RT = (scores.logprobs_BT - seen.logprobs_RT).exp()
        return LossTerms(
            policy_RT=policy_loss_terms(ratio_RT, seen.advantages_RT, self.settings.ratio_clip),
            value_RT=value_loss_terms(values_RT, old_RT, _of_value_head(seen.returns_RT), self.settings.value_clip),
            value_weight=self.settings.value_weight,
            value_clipped_RT=((values_RT - old_RT).abs() > self.settings.value_clip).float(),
        )


def _of_value_head(tensor: Tensor | None) -> Tensor:
    if tensor is None:
        raise ValueError("ppo learns with a value head; this policy has none")
    return tensor
