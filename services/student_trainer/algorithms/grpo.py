"""Group relative policy optimisation (GRPO), and Dr. GRPO.

Source: Shao et al. 2024 (arXiv 2402.03300), equation 3 and section 4.1.2: a story's advantage is its reward minus its
group's mean, over the group's standard deviation; the loss is PPO's clipped surrogate plus coefficient * KL (k3),
averaged over a story's tokens, then over stories. Liu et al. 2025 (arXiv 2503.20783) show that the standard deviation
favours groups that nearly agree and that the average over tokens favours long bad stories; `scale_by_std: false` and
`length_norm: constant` are their cure, Dr. GRPO. TRL's `GRPOTrainer` computes the same (`loss_type` grpo and dr_grpo,
standard deviation unbiased and plus 1e-4). What we do differently:

1. All stories continue one prompt, so the whole batch is one group; `group_size` makes smaller ones of neighbours.
2. The KL coefficient is `interact.kl`'s, adaptive if that says so; the paper's is 0.04, fixed.
3. Stories without a usable verdict are in no loss, no mean and no standard deviation, and are not counted among the
   stories that the loss is averaged over. A group whose rewards are all equal has advantage exactly 0.
4. A pass without any gradient takes no step; Adam would take one of pure momentum.
5. Where an earlier policy wrote (lag > 0), surrogate and KL are multiplied by each token's importance weight: the
   decoupled objective (AReaL, arXiv 2505.24298).
"""

from dataclasses import dataclass, replace

from services.student_trainer.advantages import group_normalised
from services.student_trainer.algorithms.experience import Experience, JudgedStories, LossTerms, Passes, score_stories
from services.student_trainer.kl import kl_terms
from services.student_trainer.learning_settings import GRPOSettings, KLEstimator
from services.student_trainer.losses import policy_loss_terms
from services.student_trainer.policy import Policy, TokenScores


@dataclass(frozen=True)
class GRPO:
    """See the module. `max_new_tokens` is the constant of `length_norm: constant`."""

    settings: GRPOSettings
    estimator: KLEstimator
    max_new_tokens: int
    section = "grpo"
    needs_value_head = False

    @property
    def passes(self) -> Passes:
        """One or several over the batch, within the ratio clip."""
        s = self.settings
        return Passes(s.epochs, s.minibatch_size, s.ratio_clip, s.ratio_threshold)

    def gather(self, policy: Policy, stories: JudgedStories, kl_coefficient: float, temperature: float) -> Experience:
        """See Algorithm. The KL penalty is in the loss."""
        s = self.settings
        scored = score_stories(policy, stories, kl_coefficient, temperature, self)
        group_size = s.group_size or len(stories.rewards_B)
        advantages_B = group_normalised(stories.rewards_B, stories.usable_B, group_size, scale_by_std=s.scale_by_std)
        mask_BT = scored.mask_RT
        if s.length_norm == "story":
            weights_BT, mass_B = mask_BT / mask_BT.sum(dim=1, keepdim=True).clamp(min=1.0), stories.usable_B
        else:
            weights_BT, mass_B = mask_BT, stories.usable_B * self.max_new_tokens
        return replace(scored, advantages_RT=advantages_B[:, None] * mask_BT, weights_RT=weights_BT, mass_R=mass_B)

    def loss(self, scores: TokenScores, seen: Experience) -> LossTerms:
        """Clipped surrogate, and the KL to the reference with its gradient."""
        ratio_RT = (scores.logprobs_BT - seen.logprobs_RT).exp()
        return LossTerms(
            policy_RT=policy_loss_terms(ratio_RT, seen.advantages_RT, self.settings.ratio_clip),
            kl_RT=seen.kl_coefficient * kl_terms(scores.logprobs_BT, seen.reference_RT, self.estimator)
            if seen.kl_coefficient > 0
            else None,
        )
