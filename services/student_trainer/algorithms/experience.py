"""What an algorithm is, what it is given and what it makes of it."""

from dataclasses import dataclass, replace
from typing import Literal, Protocol

import torch
from torch import Tensor

from services.student_trainer.advantages import masked_mean
from services.student_trainer.learning_settings import LearningSettings
from services.student_trainer.losses import importance_weights
from services.student_trainer.policy import Policy, TokenScores


@dataclass(frozen=True)
class JudgedStories:
    """B stories of a prompt and T response tokens, S in all. Where `usable_B` is 0 a reward means nothing.

    `behaviour_BT`: log-probabilities under the policy that wrote, where that is an earlier one than the policy that
    learns (lag > 0); else none.
    """

    sequences_BS: Tensor
    mask_BT: Tensor  # 1 on response tokens
    rewards_B: Tensor
    usable_B: Tensor
    behaviour_BT: Tensor | None = None


@dataclass(frozen=True)
class Experience:
    """The batch as an update sees it. A loss is `sum(terms_RT * weights_RT) / sum(mass_R)` over a pass's rows.

    Terms that stand for an expectation over the policy's own tokens, those of policy and KL, are multiplied by
    `importance_RT` where another policy wrote. That makes PPO's clipped surrogate the decoupled objective of AReaL
    (arXiv 2505.24298): the ratio and its clip are around the policy before the update, the weight leads back to the
    policy that wrote.

    `kl_B`, `kl_per_story`, `entropy` and `stories` speak of the whole batch, the rest of the R rows to learn from.
    """

    sequences_RS: Tensor
    mask_RT: Tensor  # 1 on response tokens of stories with a usable verdict
    logprobs_RT: Tensor  # of the policy before the update
    reference_RT: Tensor  # log-probabilities of the reference
    advantages_RT: Tensor
    weights_RT: Tensor
    mass_R: Tensor
    kl_coefficient: float
    kl_B: Tensor  # logp - reference logp summed over the story's tokens, in nats; 0 without a usable verdict
    kl_per_story: float
    entropy: float
    stories: int  # with a usable verdict
    values_RT: Tensor | None = None
    returns_RT: Tensor | None = None
    importance_RT: Tensor | None = None  # pi before the update / pi that wrote; none: they are the same
    first_pass: TokenScores | None = None  # of all rows, with its graph, where the first pass would compute it again

    def at(self, rows: Tensor) -> "Experience":
        """The same with these rows only: of each tensor whose name says that its first axis is R."""
        per_row = {name: value[rows] for name, value in vars(self).items() if value is not None and "_R" in name}
        return replace(self, **per_row)


@dataclass(frozen=True)
class LossTerms:
    """Terms [R, T] of one forward. The loss is policy + value_weight * value + KL, each weighted as Experience says."""

    policy_RT: Tensor
    kl_RT: Tensor | None = None  # with its coefficient
    value_RT: Tensor | None = None
    value_weight: float = 0.0
    value_clipped_RT: Tensor | None = None  # 1 where the value left its clip range


@dataclass(frozen=True)
class Passes:
    """How an update goes over its batch."""

    epochs: int = 1
    minibatch_size: int | None = None
    ratio_clip: float | None = None  # none: nothing is clipped
    ratio_threshold: float | None = None  # a pass whose mean ratio exceeds it is skipped
    chosen_rows: bool = False  # the rows to learn from are not those that were scored

    def begins_with_all(self, stories: int) -> bool:
        """Whether the first pass goes over all the stories that were scored, in their order."""
        return not self.chosen_rows and (self.minibatch_size is None or self.minibatch_size >= stories)


class Algorithm(Protocol):
    """A way to learn from judged stories: what they are worth, and the loss of each of their tokens."""

    @property
    def section(self) -> str:
        """Name of its settings under `interact`."""

    @property
    def settings(self) -> LearningSettings: ...

    @property
    def passes(self) -> Passes: ...

    @property
    def needs_value_head(self) -> bool: ...

    def gather(self, policy: Policy, stories: JudgedStories, kl_coefficient: float, temperature: float) -> Experience:
        """Score the stories under policy and reference, and say what each token is worth.

        Raises:
            ValueError: no story has a usable verdict.
        """

    def loss(self, scores: TokenScores, seen: Experience) -> LossTerms:
        """Loss terms of the rows `seen`, whose tokens the learning policy scores so."""


def score_stories(
    policy: Policy,
    stories: JudgedStories,
    kl_coefficient: float,
    temperature: float,
    algorithm: Algorithm,
    *,
    importance: Literal["token", "story"] | None = "token",
) -> Experience:
    """Policy and reference on each response token, with advantages 0 and every token of the same weight.

    Where the first pass would be this very forward (all stories in one micro-batch), its graph is kept for that pass.
    Of several processes each scores its share, and all learn what came of it.

    Args:
        importance: what an importance weight is of, where another policy wrote; none: there is none.

    Raises:
        ValueError: no story has a usable verdict.
    """
    mask_BT = stories.mask_BT * stories.usable_B[:, None]
    ranks, all_B = policy.ranks, torch.arange(len(mask_BT), device=mask_BT.device)
    parts = policy.own_micro_batches(all_B, algorithm.settings.micro_batch_size)
    chunks = [(stories.sequences_BS[rows], mask_BT[rows]) for rows, _ in parts]
    own = sum(weight > 0 for _, weight in parts)
    with torch.set_grad_enabled(algorithm.passes.begins_with_all(len(mask_BT)) and len(chunks) == 1):
        scores = [policy.token_scores(rows, mask, temperature, entropy=True) for rows, mask in chunks][:own]
    first_pass = scores[0] if scores[0].logprobs_BT.requires_grad else None
    with torch.no_grad():
        reference = [policy.reference_logprobs(rows, mask, temperature) for rows, mask in chunks][:own]
    reference_BT = ranks.gather_rows(torch.cat(reference))
    logprobs_BT = ranks.gather_rows(torch.cat([s.logprobs_BT for s in scores]).detach())
    values = [s.values_BT for s in scores if s.values_BT is not None]
    entropy_BT = ranks.gather_rows(torch.cat([s.entropy_BT for s in scores if s.entropy_BT is not None]).detach())
    importance_BT = None
    if importance is not None and stories.behaviour_BT is not None:
        importance_BT = importance_weights(
            logprobs_BT, stories.behaviour_BT, mask_BT, whole_story=importance == "story"
        )
    kl_B = ((logprobs_BT - reference_BT) * mask_BT).sum(dim=1)
    return Experience(
        sequences_RS=stories.sequences_BS,
        mask_RT=mask_BT,
        logprobs_RT=logprobs_BT,
        reference_RT=reference_BT,
        advantages_RT=torch.zeros_like(mask_BT),
        weights_RT=mask_BT,
        mass_R=mask_BT.sum(dim=1),
        kl_coefficient=kl_coefficient,
        kl_B=kl_B,
        kl_per_story=float(masked_mean(kl_B, stories.usable_B)),
        entropy=float(masked_mean(entropy_BT, mask_BT)),
        stories=int(stories.usable_B.sum()),
        values_RT=ranks.gather_rows(torch.cat(values).detach()) if values else None,
        importance_RT=importance_BT,
        first_pass=first_pass,
    )
