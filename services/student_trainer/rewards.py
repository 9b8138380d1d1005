"""From verdicts to rewards. Pure; shapes in names.

A story's reward starts as the teacher's, in 0..1, and goes through shapings in order. Each is a function of the reward
so far and of the story: `length_bonus`, `repetition_penalty`, `missing_end_penalty`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fabula_proto import Verdict, VerdictStatus
from services.student_trainer.kl import kl_terms
from services.student_trainer.learning_settings import KLEstimator

NGRAM_WORDS = 3


@dataclass(frozen=True)
class WrittenStory:
    """What a shaping may look at: the student's own text, its whitespace words, and whether it wrote </s>."""

    text: str
    words: int
    ended: bool


Shaping = Callable[[float, WrittenStory], float]


class UnknownCriterionError(RuntimeError):
    """`reward.weights` names a criterion that the teacher's rubric lacks."""


def length_bonus(weight: float, max_new_tokens: int) -> Shaping:
    """arXiv 2509.15714: `(r + weight * words / max_new_tokens) / (1 + weight)`, with weight 0.4.

    `max_new_tokens` is the length limit in tokens (90 in the paper, which divides words by it).
    """
    return lambda reward, story: (reward + weight * story.words / max_new_tokens) / (1.0 + weight)


def repetition_penalty(weight: float) -> Shaping:
    """Minus `weight` times the share of word trigrams that repeat an earlier one."""
    return lambda reward, story: reward - weight * repeated_share(story.text)


def missing_end_penalty(weight: float) -> Shaping:
    """Minus `weight` for a story that did not end itself, so that the length limit cut it off."""
    return lambda reward, story: reward if story.ended else reward - weight


def repeated_share(text: str) -> float:
    """Share of a text's word trigrams, letter case aside, that have occurred in it before; 0 below two trigrams."""
    words = text.casefold().split()
    ngrams = [tuple(words[i : i + NGRAM_WORDS]) for i in range(len(words) - NGRAM_WORDS + 1)]
    return 1.0 - len(set(ngrams)) / len(ngrams) if ngrams else 0.0


def usable_reward(verdict: Verdict) -> float | None:
    """The teacher's reward in 0..1 where the verdict may be learned from; none for failed, refused or not finite."""
    if verdict.status is not VerdictStatus.OK or verdict.reward is None or not math.isfinite(verdict.reward):
        return None
    return verdict.reward


def teacher_reward(verdict: Verdict, weights: Mapping[str, float]) -> float | None:
    """`usable_reward`; with `weights`, the criteria's mean levels scaled to 0..1 and averaged under them instead.

    A criterion that `weights` leaves out weighs 1.

    Raises:
        UnknownCriterionError: a weight names no criterion of the verdict, or all weights are 0.
    """
    reward = usable_reward(verdict)
    if reward is None or not weights or verdict.criteria is None:
        return reward
    if unknown := sorted(set(weights) - set(verdict.criteria)):
        raise UnknownCriterionError(
            f"interact.reward.weights names {', '.join(unknown)}; "
            f"the criteria of the teacher's rubric are {', '.join(verdict.criteria)}"
        )
    total = sum(weights.get(name, 1.0) for name in verdict.criteria)
    if not total > 0:
        raise UnknownCriterionError("interact.reward.weights leaves no criterion with a weight above 0")
    scaled = {name: score.mean / (len(score.probabilities) - 1) for name, score in verdict.criteria.items()}
    return sum(weights.get(name, 1.0) * value for name, value in scaled.items()) / total


def story_rewards(
    verdicts: Sequence[Verdict],
    stories: Sequence[WrittenStory],
    weights: Mapping[str, float],
    shapings: Sequence[Shaping],
) -> tuple[Tensor, Tensor]:
    """Rewards [B] and a mask [B] that is 0 where no verdict can be learned from; a reward there means nothing.

    Raises:
        UnknownCriterionError: see `teacher_reward`.
    """
    given = [teacher_reward(verdict, weights) for verdict in verdicts]
    rewards = [
        0.0 if reward is None else _shaped(reward, story, shapings)
        for reward, story in zip(given, stories, strict=True)
    ]
    return torch.tensor(rewards), torch.tensor([0.0 if reward is None else 1.0 for reward in given])


def _shaped(reward: float, story: WrittenStory, shapings: Sequence[Shaping]) -> float:
    for shaping in shapings:
        reward = shaping(reward, story)
    return reward


def token_rewards(
    story_rewards_B: Tensor,
    logprobs_BT: Tensor,
    reference_logprobs_BT: Tensor,
    mask_BT: Tensor,
    kl_coefficient: float,
    estimator: KLEstimator = "k1",
) -> Tensor:
    """Rewards [B, T]: minus the KL penalty at every token, the story's reward at its last one."""
    penalty_BT = -kl_coefficient * kl_terms(logprobs_BT, reference_logprobs_BT, estimator) * mask_BT
    last_B = mask_BT.sum(dim=1).long() - 1
    at_end_BT = torch.zeros_like(penalty_BT)
    at_end_BT[torch.arange(len(last_B)), last_B.clamp(min=0)] = story_rewards_B.to(penalty_BT)
    return penalty_BT + torch.where(mask_BT > 0, at_end_BT, 0.0)  # not a product: what is masked may be infinite
