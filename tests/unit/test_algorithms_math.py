"""Advantages of groups, KL estimators, criterion weights and shaping: by hand, by plain references, by property."""

import math
import statistics
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fabula_proto import Verdict, VerdictStatus
from services.student_trainer.advantages import group_normalised, leave_one_out
from services.student_trainer.kl import kl_terms
from services.student_trainer.learning_settings import KLEstimator
from services.student_trainer.rewards import (
    UnknownCriterionError,
    WrittenStory,
    length_bonus,
    missing_end_penalty,
    repeated_share,
    repetition_penalty,
    story_rewards,
    teacher_reward,
)
from services.teacher.rubric import load_rubric

Baseline = Callable[[Tensor, Tensor, int], Tensor]


def grpo(rewards: Tensor, usable: Tensor, group_size: int) -> Tensor:
    return group_normalised(rewards, usable, group_size, scale_by_std=True)


def dr_grpo(rewards: Tensor, usable: Tensor, group_size: int) -> Tensor:
    return group_normalised(rewards, usable, group_size, scale_by_std=False)


BASELINES = pytest.mark.parametrize("baseline", [leave_one_out, grpo, dr_grpo])
ONE_GROUP = st.integers(1, 4).flatmap(
    lambda groups: st.integers(2, 6).flatmap(
        lambda size: st.tuples(
            st.just(size),
            st.lists(st.integers(0, 1000), min_size=groups * size, max_size=groups * size),
            st.lists(st.booleans(), min_size=groups * size, max_size=groups * size),
        )
    )
)


def plain(name: str, rewards: list[float], usable: list[bool], size: int) -> list[float]:
    """One story at a time, in Python's floats."""
    advantages = []
    for i, reward in enumerate(rewards):
        first = i // size * size
        others = [rewards[j] for j in range(first, first + size) if usable[j] and j != i]
        everyone = [*others, reward]
        if not usable[i] or not others or len(set(everyone)) == 1:
            advantages.append(0.0)
        elif name == "leave_one_out":
            advantages.append(reward - statistics.fmean(others))
        else:
            centred = reward - statistics.fmean(everyone)
            advantages.append(centred / (statistics.stdev(everyone) + 1e-4) if name == "grpo" else centred)
    return advantages


@BASELINES
@given(ONE_GROUP)
@settings(max_examples=60, deadline=None)
def test_baselines_agree_with_the_plain_formula(baseline: Baseline, drawn: tuple[int, list[int], list[bool]]) -> None:
    size, levels, usable = drawn
    rewards = [level / 1000 for level in levels]
    found = baseline(torch.tensor(rewards, dtype=torch.float64), torch.tensor(usable).double(), size)
    expected = torch.tensor(plain(baseline.__name__, rewards, usable, size), dtype=torch.float64)
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=1e-9)


@BASELINES
@given(ONE_GROUP, st.floats(-5, 5))
@settings(max_examples=40, deadline=None)
def test_baselines_do_not_see_a_shift_of_all_rewards(
    baseline: Baseline, drawn: tuple[int, list[int], list[bool]], shift: float
) -> None:
    size, levels, usable = drawn
    rewards, mask = torch.tensor(levels, dtype=torch.float64) / 1000, torch.tensor(usable).double()
    torch.testing.assert_close(baseline(rewards + shift, mask, size), baseline(rewards, mask, size), atol=1e-8, rtol=0)


@BASELINES
@given(st.floats(0, 1, width=32), st.integers(2, 40))
@settings(max_examples=40, deadline=None)
def test_equal_rewards_have_no_advantage_at_all(baseline: Baseline, reward: float, size: int) -> None:
    """Exactly 0: a residue of rounding, divided by a deviation of nearly 0, would be a gradient."""
    assert not baseline(torch.full((2 * size,), reward), torch.ones(2 * size), size).any()


@BASELINES
def test_one_usable_story_or_none_has_no_advantage(baseline: Baseline) -> None:
    rewards = torch.tensor([0.1, 0.9, 0.5, math.nan, 0.3, 0.7])
    usable = torch.tensor([0.0, 1.0, 0.0, 0.0, 0.0, 0.0])
    assert not baseline(rewards, usable, 3).any()


@BASELINES
@pytest.mark.parametrize("bogus", [0.0, 1e6, math.nan, math.inf])
def test_an_unusable_reward_is_in_no_baseline(baseline: Baseline, bogus: float) -> None:
    rewards, usable = torch.tensor([0.1, bogus, 0.5, 0.6]), torch.tensor([1.0, 0.0, 1.0, 1.0])
    without = baseline(torch.tensor([0.1, 0.5, 0.6]), torch.ones(3), 3)
    found = baseline(rewards, usable, 4)
    torch.testing.assert_close(found[[0, 2, 3]], without)
    assert found[1] == 0.0


def test_full_groups_are_trls() -> None:
    """TRL's RLOOTrainer: `r - (sum - r) / (k - 1)`; its GRPOTrainer: `(r - mean) / (std + 1e-4)`, std unbiased."""
    rewards, ones = torch.rand(12, generator=torch.Generator().manual_seed(0)), torch.ones(12)
    groups = rewards.view(3, 4)
    rloo = groups - (groups.sum(1, keepdim=True) - groups) / 3
    torch.testing.assert_close(leave_one_out(rewards, ones, 4), rloo.flatten())
    normalised = (groups - groups.mean(1, keepdim=True)) / (groups.std(1, keepdim=True) + 1e-4)
    torch.testing.assert_close(grpo(rewards, ones, 4), normalised.flatten())


def test_kl_estimators_by_hand() -> None:
    logprobs, reference = torch.tensor([[-1.0, -3.0]]), torch.tensor([[-2.0, -2.5]])
    torch.testing.assert_close(kl_terms(logprobs, reference, "k1"), torch.tensor([[1.0, -0.5]]))
    torch.testing.assert_close(kl_terms(logprobs, reference, "k2"), torch.tensor([[0.5, 0.125]]))
    expected = torch.tensor([[math.exp(-1.0) - 1 + 1.0, math.exp(0.5) - 1 - 0.5]])
    torch.testing.assert_close(kl_terms(logprobs, reference, "k3"), expected)


def distributions() -> tuple[Tensor, Tensor]:
    """Logits of a policy and log-probabilities of a reference over five tokens."""
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(5, generator=generator, dtype=torch.float64).requires_grad_()
    return logits, torch.randn(5, generator=generator, dtype=torch.float64).log_softmax(0)


@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_k1_and_k3_are_unbiased(estimator: KLEstimator) -> None:
    logits, reference = distributions()
    logprobs = logits.log_softmax(0)
    exact = (logprobs.exp() * (logprobs - reference)).sum()
    torch.testing.assert_close((logprobs.exp() * kl_terms(logprobs, reference, estimator)).sum(), exact)


def test_gradients_of_the_estimators_are_what_their_docstring_says() -> None:
    logits, reference = distributions()
    logprobs = logits.log_softmax(0)
    weights = logprobs.exp().detach()  # samples are the policy's, and drawing them has no gradient

    def gradient(of: Tensor) -> Tensor:
        return torch.autograd.grad(of, logits, retain_graph=True)[0]

    own = gradient((logprobs.exp() * (logprobs - reference)).sum())
    reverse = gradient((reference.exp() * (reference - logprobs)).sum())
    expected: dict[KLEstimator, Tensor] = {"k1": torch.zeros_like(own), "k2": own, "k3": reverse}
    for estimator, wanted in expected.items():
        torch.testing.assert_close(gradient((weights * kl_terms(logprobs, reference, estimator)).sum()), wanted)


def verdict(**levels: int) -> Verdict:
    """Readability, coherence and creativity, each certain of its level."""
    rubric = load_rubric()
    return rubric.verdict("s", {c.name: [float(i == levels[c.name]) for i in range(4)] for c in rubric.criteria})


def test_criterion_weights() -> None:
    judged = verdict(readability=3, coherence=0, creativity=0)
    assert teacher_reward(judged, {}) == judged.reward == pytest.approx(1 / 3)
    assert teacher_reward(judged, {"readability": 2}) == pytest.approx(2 / 4)
    assert teacher_reward(judged, {"readability": 0}) == 0.0
    assert teacher_reward(judged, dict.fromkeys(("readability", "coherence", "creativity"), 5.0)) == judged.reward
    failed = Verdict(story_id="s", status=VerdictStatus.FAILED, reason="away")
    assert teacher_reward(failed, {"readability": 2}) is None


def test_a_weight_of_no_criterion_is_named() -> None:
    judged = verdict(readability=3, coherence=0, creativity=0)
    with pytest.raises(
        UnknownCriterionError, match=r"names grammar; the criteria .* readability, coherence, creativity"
    ):
        teacher_reward(judged, {"grammar": 2})
    with pytest.raises(UnknownCriterionError, match="no criterion with a weight above 0"):
        teacher_reward(judged, dict.fromkeys(("readability", "coherence", "creativity"), 0.0))


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("", 0.0),
        ("one two three", 0.0),
        ("a b c a b c", 1 / 4),  # abc bca cab abc
        ("The fox ran. the FOX ran.", 1 / 4),
        ("so so so so so", 2 / 3),
    ],
)
def test_repeated_share(text: str, share: float) -> None:
    assert repeated_share(text) == pytest.approx(share)


def test_shapings_compose_in_order() -> None:
    story = WrittenStory("a b c a b c", words=6, ended=False)
    whole = WrittenStory("a b c d e f", words=6, ended=True)
    judged = verdict(readability=3, coherence=3, creativity=0)
    shapings = (length_bonus(0.4, 12), repetition_penalty(0.2), missing_end_penalty(0.1))
    failed = Verdict(story_id="s", status=VerdictStatus.FAILED, reason="away")
    rewards, usable = story_rewards([judged, judged, failed], [story, whole, whole], {}, shapings)
    bonus = (2 / 3 + 0.4 * 0.5) / 1.4
    torch.testing.assert_close(rewards, torch.tensor([bonus - 0.2 / 4 - 0.1, bonus, 0.0]))
    assert usable.tolist() == [1.0, 1.0, 0.0]
