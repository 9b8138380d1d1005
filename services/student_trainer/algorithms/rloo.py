"""REINFORCE with a leave-one-out baseline (RLOO).

Source: Ahmadian et al. 2024 (arXiv 2402.14740), the RLOO estimator; after Kool et al. 2019. A whole story is one
action: its reward is the story's minus coefficient * KL summed over its tokens, its baseline the mean of the other
stories of its group, its loss minus the advantage times the story's log-probability. TRL's `RLOOTrainer` computes the
same advantages. What we do differently:

1. All stories continue one prompt, so the whole batch is one group. `group_size` k makes groups of k neighbours, which
   is the paper's setting of k samples a prompt; a larger group has a baseline of less variance and the same mean.
2. One gradient step a batch, so policy and writer are the same and there is no ratio to clip. TRL can go over a batch
   several times with PPO's clip on the ratio of whole sequences.
3. Stories without a usable verdict are in no loss and in no baseline. A group whose rewards are all equal, or which has
   one usable story, has advantage 0.
4. The loss is the mean over usable stories; token losses are summed, not averaged, within a story.
5. Where an earlier policy wrote (lag > 0), a story's loss is multiplied by its importance weight, which is that of the
   whole story since the story is the action: unbiased, and of a variance that grows with its length.
"""

from dataclasses import dataclass, replace

from services.student_trainer.advantages import leave_one_out
from services.student_trainer.algorithms.experience import Experience, JudgedStories, LossTerms, Passes, score_stories
from services.student_trainer.kl import kl_terms
from services.student_trainer.learning_settings import KLEstimator, RLOOSettings
from services.student_trainer.policy import Policy, TokenScores


@dataclass(frozen=True)
class RLOO:
    """See the module."""

    settings: RLOOSettings
    estimator: KLEstimator
    section = "rloo"
    needs_value_head = False
    passes = Passes()

    def gather(self, policy: Policy, stories: JudgedStories, kl_coefficient: float, temperature: float) -> Experience:
        """See Algorithm. The KL penalty is in the story rewards."""
        scored = score_stories(policy, stories, kl_coefficient, temperature, self, importance="story")
        kl_BT = kl_terms(scored.logprobs_RT, scored.reference_RT, self.estimator) * scored.mask_RT
        rewards_B = stories.rewards_B - kl_coefficient * kl_BT.sum(dim=1)
        group_size = self.settings.group_size or len(rewards_B)
        advantages_B = leave_one_out(rewards_B, stories.usable_B, group_size)
        return replace(scored, advantages_RT=advantages_B[:, None] * scored.mask_RT, mass_R=stories.usable_B)

    def loss(self, scores: TokenScores, seen: Experience) -> LossTerms:
        """`-A * logp`."""
        return LossTerms(policy_RT=-seen.advantages_RT * scores.logprobs_BT)
