"""PPO's mathematics: against numbers worked out by hand, and against independent references on random tensors."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from services.student_trainer.advantages import gae, masked_mean, masked_whiten
from services.student_trainer.kl import KLController
from services.student_trainer.losses import policy_loss_terms, value_loss_terms
from services.student_trainer.rewards import WrittenStory, length_bonus, token_rewards


def test_gae_by_hand() -> None:
    # Two tokens, gamma 1, lambda 0.95. delta_1 = 1 - 0.5 = 0.5; delta_0 = 0 + 0.5 - 0.2 = 0.3;
    # A_1 = 0.5, A_0 = 0.3 + 0.95 * 0.5 = 0.775; returns 0.975 and 1.0. The third position is padding.
    rewards = torch.tensor([[0.0, 1.0, 9.0]])
    values = torch.tensor([[0.2, 0.5, 7.0]])
    mask = torch.tensor([[1.0, 1.0, 0.0]])
    advantages, returns = gae(rewards, values, mask, gamma=1.0, gae_lambda=0.95)
    torch.testing.assert_close(advantages, torch.tensor([[0.775, 0.5, 0.0]]))
    torch.testing.assert_close(returns, torch.tensor([[0.975, 1.0, 0.0]]))


@given(st.integers(0, 10_000), st.floats(0.5, 1.0), st.floats(0.0, 1.0))
@settings(max_examples=40, deadline=None)
def test_gae_is_the_discounted_sum_of_td_errors(seed: int, gamma: float, lam: float) -> None:
    """The definition, equation 16 of arXiv 1506.02438, as a double sum a story at a time."""
    rng = np.random.default_rng(seed)
    stories, width = 4, 7
    rewards, values = rng.normal(size=(stories, width)), rng.normal(size=(stories, width))
    lengths = rng.integers(1, width + 1, size=stories)
    mask = (np.arange(width)[None] < lengths[:, None]).astype(float)
    expected = np.zeros((stories, width))
    for b, n in enumerate(lengths):
        v = np.append(values[b, :n], 0.0)
        delta = rewards[b, :n] + gamma * v[1:] - v[:-1]
        for t in range(n):
            expected[b, t] = sum((gamma * lam) ** k * delta[t + k] for k in range(n - t))
    advantages, returns = gae(torch.tensor(rewards), torch.tensor(values), torch.tensor(mask), gamma, lam)
    np.testing.assert_allclose(advantages.numpy(), expected, atol=1e-10)
    np.testing.assert_allclose(returns.numpy(), (expected + values) * mask, atol=1e-10)


def test_gae_with_lambda_one_returns_the_rewards_to_go() -> None:
    rewards = torch.tensor([[0.1, -0.2, 1.0]])
    _, returns = gae(rewards, torch.randn(1, 3), torch.ones(1, 3), gamma=1.0, gae_lambda=1.0)
    torch.testing.assert_close(returns, torch.tensor([[0.9, 0.8, 1.0]]))


def test_padding_cannot_leak_into_advantages() -> None:
    rewards, values = torch.randn(3, 5), torch.randn(3, 5)
    mask = torch.tensor([[1.0, 1, 1, 0, 0], [1, 0, 0, 0, 0], [1, 1, 1, 1, 1]])
    clean = gae(rewards, values, mask, 1.0, 0.95)[0]
    dirty = gae(rewards + 1e3 * (1 - mask), values - 1e3 * (1 - mask), mask, 1.0, 0.95)[0]
    torch.testing.assert_close(clean, dirty)


def test_whitening_by_hand() -> None:
    # Values 1, 2, 3: mean 2, unbiased variance 1. The masked 100 counts for nothing.
    whitened = masked_whiten(torch.tensor([1.0, 2.0, 3.0, 100.0]), torch.tensor([1.0, 1.0, 1.0, 0.0]))
    torch.testing.assert_close(whitened, torch.tensor([-1.0, 0.0, 1.0, 0.0]))


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_whitening_agrees_with_numpy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.normal(3.0, 2.0, size=(6, 9))
    mask = (rng.random((6, 9)) < 0.6).astype(float)
    mask[0, :2] = 1.0
    chosen = values[mask > 0]
    expected = (values - chosen.mean()) / math.sqrt(chosen.var(ddof=1) + 1e-8) * mask
    np.testing.assert_allclose(masked_whiten(torch.tensor(values), torch.tensor(mask)).numpy(), expected, atol=1e-9)


def test_whitening_one_token_is_zero_and_none_is_an_error() -> None:
    assert masked_whiten(torch.tensor([5.0, 1.0]), torch.tensor([1.0, 0.0])).tolist() == [0.0, 0.0]
    with pytest.raises(ValueError, match="empty mask"):
        masked_mean(torch.tensor([5.0]), torch.tensor([0.0]))


@pytest.mark.parametrize(
    ("ratio", "advantage", "expected"),
    [
        (1.0, 2.0, -2.0),
        (1.5, 2.0, -2.4),  # gain is clipped at 1.2
        (0.5, 2.0, -1.0),  # a loss is not
        (1.5, -2.0, 3.0),
        (0.5, -2.0, 1.6),  # clipped at 0.8
    ],
)
def test_policy_loss_by_hand(ratio: float, advantage: float, expected: float) -> None:
    loss = policy_loss_terms(torch.tensor([[ratio]]), torch.tensor([[advantage]]), clip=0.2)
    assert loss.item() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("value", "old", "target", "expected"),
    [
        (0.5, 0.5, 1.0, 0.125),
        (0.9, 0.5, 1.0, 0.045),  # clipped to 0.7: (0.3)^2 / 2 is the larger
        (0.1, 0.5, 1.0, 0.405),  # unclipped (0.9)^2 / 2 is the larger
    ],
)
def test_value_loss_by_hand(value: float, old: float, target: float, expected: float) -> None:
    loss = value_loss_terms(torch.tensor([[value]]), torch.tensor([[old]]), torch.tensor([[target]]), clip=0.2)
    assert loss.item() == pytest.approx(expected)


def test_reward_is_the_papers() -> None:
    # t = 5/9, 45 words of at most 90: (0.5556 + 0.4 * 0.5) / 1.4
    bonus = length_bonus(0.4, 90)
    assert bonus(5 / 9, WrittenStory("", words=45, ended=True)) == pytest.approx((5 / 9 + 0.2) / 1.4)
    assert bonus(1.0, WrittenStory("", words=90, ended=False)) == pytest.approx(1.0)


def test_token_rewards_put_the_score_at_the_last_token() -> None:
    logprobs = torch.tensor([[-1.0, -2.0, -3.0], [-1.0, -1.0, -1.0]])
    reference = torch.tensor([[-1.5, -2.0, -9.0], [-1.0, -2.0, -1.0]])
    mask = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    rewards = token_rewards(torch.tensor([0.7, 0.9]), logprobs, reference, mask, kl_coefficient=0.1)
    torch.testing.assert_close(rewards, torch.tensor([[-0.05, 0.7, 0.0], [0.0, 0.0, 0.0]]))


def test_kl_controller_by_hand() -> None:
    controller = KLController(0.2, adaptive=True, target=6.0, horizon=10_000)
    controller.update(kl=6.6, stories=360)  # error 0.1
    assert controller.coefficient == pytest.approx(0.2 * (1 + 0.1 * 0.036))
    controller = KLController(0.2, adaptive=True, target=6.0, horizon=10_000)
    controller.update(kl=0.0, stories=360)  # clipped at -0.2
    assert controller.coefficient == pytest.approx(0.2 * (1 - 0.2 * 0.036))
    controller.update(kl=600.0, stories=360)  # clipped at +0.2
    assert controller.coefficient == pytest.approx(0.2 * (1 - 0.0072) * (1 + 0.0072))


def test_papers_kl_coefficient_decays_as_recorded() -> None:
    """920 batches of 360 at a KL far below target: 0.2 falls to about 0.00025 (arXiv 2509.15714's runs)."""
    controller = KLController(0.2, adaptive=True, target=6.0, horizon=10_000)
    for _ in range(920):
        controller.update(kl=0.1, stories=360)
    assert controller.coefficient == pytest.approx(0.00026, abs=0.00003)


def test_kl_controller_keeps_floor_and_fixed_coefficient() -> None:
    floored = KLController(0.2, adaptive=True, target=6.0, horizon=100, floor=0.15)
    for _ in range(10):
        floored.update(0.0, 50)
    assert floored.coefficient == 0.15
    fixed = KLController(0.2, adaptive=False, target=6.0, horizon=100)
    fixed.update(60.0, 50)
    assert fixed.coefficient == 0.2
