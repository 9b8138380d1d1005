"""Best of n, supervised: next-word prediction on the batch's best stories.

Source: rejection-sampling fine-tuning as in RAFT (Dong et al. 2023, arXiv 2304.06767), algorithm 1: write, keep
the best by reward, learn them by cross-entropy, repeat. The baseline that an RL algorithm has to beat at the same
words. What we do differently:

1. All stories continue one prompt, so the best are the best `best_share` of the batch's usable stories, at least one,
   not the best of each prompt's k. Equal rewards: the earlier story.
2. Only the story's own tokens are learned, its end token included; a story that was cut off has none.
3. Whoever wrote a story, it is learned as text: no importance weight where an earlier policy wrote (lag > 0).
4. No KL penalty, as in RAFT's basic form; the KL is measured and recorded, and moves nothing.
"""

from dataclasses import dataclass, replace

import torch

from services.student_trainer.algorithms.experience import Experience, JudgedStories, LossTerms, Passes, score_stories
from services.student_trainer.learning_settings import BestOfNSettings
from services.student_trainer.policy import Policy, TokenScores


@dataclass(frozen=True)
class BestOfN:
    """See the module. The advantage of a chosen story is 1; the others are not among the rows that are learned from."""

    settings: BestOfNSettings
    section = "bon"
    needs_value_head = False

    @property
    def passes(self) -> Passes:
        """`epochs` over the chosen stories, nothing clipped."""
        return Passes(epochs=self.settings.epochs, chosen_rows=True)

    def gather(self, policy: Policy, stories: JudgedStories, kl_coefficient: float, temperature: float) -> Experience:
        """See Algorithm."""
        scored = score_stories(policy, stories, kl_coefficient, temperature, self, importance=None)
        count = max(1, round(self.settings.best_share * scored.stories))
        ranked_B = torch.where(stories.usable_B > 0, stories.rewards_B, -torch.inf)
        best_R = torch.sort(ranked_B, descending=True, stable=True).indices[:count].sort().values
        chosen = scored.at(best_R)
        return replace(chosen, advantages_RT=chosen.mask_RT)

    def loss(self, scores: TokenScores, seen: Experience) -> LossTerms:
        """Cross-entropy."""
        return LossTerms(policy_RT=-seen.advantages_RT * scores.logprobs_BT)
