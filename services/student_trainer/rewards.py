"""From verdicts to rewards. Pure; shapes in names.

A story's reward starts as the teacher's, in 0..1, and goes through shapings in order. Each is a function of the reward
so far and of the story: `length_bonus`, `repetition_penalty`, `missing_end_penalty`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fabula_proto import CriterionScore, Verdict, VerdictStatus
from services.student_trainer.kl import kl_terms
from services.student_trainer.learning_settings import KLEstimator

NGRAM_WORDS = 3
ROUNDING = 1e-6  # a criterion's standard deviation below this is none


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
    shares = _shares(verdict.criteria, weights)
    return sum(shares[name] * value for name, value in _levels(verdict.criteria).items())


def equalised_rewards(verdicts: Sequence[Verdict], weights: Mapping[str, float]) -> list[float | None]:
    """The verdicts' rewards with every criterion spread alike, so that one of little variance is not drowned.

    A criterion's levels, in 0..1, are normalised over the batch's usable verdicts (mean 0, standard deviation 1,
    unbiased), scaled to the weighted mean of the criteria's standard deviations, put back on their own mean, and
    averaged under `weights`; a criterion that `weights` leaves out weighs 1. One of no variance adds its mean. Where
    all criteria spread alike already, the result is `teacher_reward`'s; with one usable verdict as well.

    After GDPO (Liu et al. 2026, arXiv 2601.05242), which normalises each reward in its group, sums, and normalises the
    sum over the batch. Ours: 1. over the batch, since all stories continue one prompt; 2. what comes out is a reward of
    the criteria's own mean and scale, which any algorithm, KL coefficient, value head and shaping can go on with.

    Raises:
        UnknownCriterionError: as `teacher_reward`; or a verdict has no criteria, or others than the first.
    """
    usable = [verdict for verdict in verdicts if usable_reward(verdict) is not None]
    if not usable:
        return [None] * len(verdicts)
    names = list(usable[0].criteria or {})
    if any(not verdict.criteria or list(verdict.criteria) != names for verdict in usable):
        raise UnknownCriterionError("interact.reward.per_criterion needs verdicts of the same criteria for all stories")
    shares = _shares(usable[0].criteria or {}, weights)
    shares_C = torch.tensor([shares[name] for name in names], dtype=torch.float64)
    levels_UC = torch.tensor([list(_levels(v.criteria or {}).values()) for v in usable], dtype=torch.float64)
    mean_C = levels_UC.mean(dim=0)
    deviations_C = levels_UC.std(dim=0) if len(usable) > 1 else torch.zeros_like(mean_C)
    deviations_C = torch.where(deviations_C > ROUNDING, deviations_C, 0.0)
    spread_C = torch.where(deviations_C > 0, (shares_C * deviations_C).sum() / deviations_C, 0.0)
    rewards = iter(((mean_C + (levels_UC - mean_C) * spread_C) @ shares_C).tolist())
    return [None if usable_reward(verdict) is None else next(rewards) for verdict in verdicts]


def _levels(criteria: Mapping[str, CriterionScore]) -> dict[str, float]:
    """Mean level of each criterion, scaled to 0..1."""
    return {name: score.mean / (len(score.probabilities) - 1) for name, score in criteria.items()}


def _shares(criteria: Mapping[str, CriterionScore], weights: Mapping[str, float]) -> dict[str, float]:
    """The criteria's weights, of sum 1."""
    if unknown := sorted(set(weights) - set(criteria)):
        raise UnknownCriterionError(
            f"interact.reward.weights names {', '.join(unknown)}; "
            f"the criteria of the teacher's rubric are {', '.join(criteria)}"
        )
    total = sum(weights.get(name, 1.0) for name in criteria)
    if not total > 0:
        raise UnknownCriterionError("interact.reward.weights leaves no criterion with a weight above 0")
    return {name: weights.get(name, 1.0) / total for name in criteria}


def story_rewards(
    verdicts: Sequence[Verdict],
    stories: Sequence[WrittenStory],
    weights: Mapping[str, float],
    shapings: Sequence[Shaping],
    *,
    per_criterion: bool = False,
) -> tuple[Tensor, Tensor]:
    """Rewards [B] and a mask [B] that is 0 where no verdict can be learned from; a reward there means nothing.

    With `per_criterion` they start from `equalised_rewards`, which are the batch's, else from each `teacher_reward`.

    Raises:
        UnknownCriterionError: see `teacher_reward` and `equalised_rewards`.
    """
    if per_criterion:
        given = equalised_rewards(verdicts, weights)
    else:
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
    at_end_BT[torch.arange(len(last_B), device=last_B.device), last_B.clamp(min=0)] = story_rewards_B.to(penalty_BT)
    return penalty_BT + torch.where(mask_BT > 0, at_end_BT, 0.0)  # not a product: what is masked may be infinite
