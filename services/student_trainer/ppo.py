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
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from services.student_trainer.advantages import gae, masked_mean, masked_whiten
from services.student_trainer.losses import policy_loss_terms, value_loss_terms
from services.student_trainer.policy import Policy, TokenScores
from services.student_trainer.rewards import token_rewards
from services.student_trainer.settings import PPOSettings


class NotFiniteError(RuntimeError):
    """A loss or gradient is NaN or infinite; the weights have not been touched by it."""


@dataclass(frozen=True)
class Experience:
    """One batch of stories as the update sees it: B stories of a prompt and T response tokens, S in all."""

    sequences_BS: Tensor
    mask_BT: Tensor  # 1 on response tokens of stories with a usable verdict
    logprobs_BT: Tensor
    values_BT: Tensor
    advantages_BT: Tensor  # whitened over the batch
    returns_BT: Tensor  # from advantages before whitening
    kl_B: Tensor  # logp - reference logp summed over the story's tokens, in nats
    kl_per_story: float
    entropy: float


@dataclass(frozen=True)
class UpdateStats:
    """What an update did, means over passes (and response tokens); see StepMetrics for units."""

    policy_loss: float
    value_loss: float
    approx_kl: float
    clip_fraction: float
    value_clip_fraction: float
    ratio_first_pass: float
    explained_variance: float
    gradient_norm: float
    passes_skipped: int


def make_optimizer(policy: Policy, settings: PPOSettings) -> torch.optim.Adam:
    """Adam, betas 0.9/0.999, eps 1e-8, no decay, no schedule: the paper's."""
    groups = [
        {"params": list(policy.model.parameters()), "lr": settings.learning_rate},
        {"params": list(policy.value_head.parameters()), "lr": settings.value_learning_rate or settings.learning_rate},
    ]
    return torch.optim.Adam(groups, betas=(0.9, 0.999), eps=1e-8)


@torch.no_grad()
def gather_experience(
    policy: Policy,
    sequences_BS: Tensor,
    mask_BT: Tensor,
    story_rewards_B: Tensor,
    usable_B: Tensor,
    kl_coefficient: float,
    temperature: float,
    settings: PPOSettings,
) -> Experience:
    """Score the stories under policy and reference, and turn story rewards into advantages and returns."""
    mask_BT = mask_BT * usable_B[:, None]
    size = settings.micro_batch_size
    chunks = list(zip(sequences_BS.split(size), mask_BT.split(size), strict=True))
    scores = [policy.token_scores(rows, mask, temperature, entropy=True) for rows, mask in chunks]
    reference_BT = torch.cat([policy.reference_logprobs(rows, mask, temperature) for rows, mask in chunks])
    logprobs_BT = torch.cat([s.logprobs_BT for s in scores])
    values_BT = torch.cat([s.values_BT for s in scores])
    entropy_BT = torch.cat([s.entropy_BT for s in scores if s.entropy_BT is not None])
    rewards_BT = token_rewards(story_rewards_B, logprobs_BT, reference_BT, mask_BT, kl_coefficient)
    advantages_BT, returns_BT = gae(rewards_BT, values_BT, mask_BT, settings.gamma, settings.gae_lambda)
    kl_B = ((logprobs_BT - reference_BT) * mask_BT).sum(dim=1)
    return Experience(
        sequences_BS=sequences_BS,
        mask_BT=mask_BT,
        logprobs_BT=logprobs_BT,
        values_BT=values_BT,
        advantages_BT=masked_whiten(advantages_BT, mask_BT),
        returns_BT=returns_BT,
        kl_B=kl_B,
        kl_per_story=float(masked_mean(kl_B, usable_B)),
        entropy=float(masked_mean(entropy_BT, mask_BT)),
    )


def update(
    policy: Policy,
    optimizer: torch.optim.Optimizer,
    experience: Experience,
    settings: PPOSettings,
    temperature: float,
    generator: torch.Generator,
) -> UpdateStats:
    """All passes over one batch. `generator` orders the minibatches where there are several.

    Raises:
        NotFiniteError: before a gradient with a NaN or infinity is applied.
    """
    passes: list[_Pass] = []
    for _ in range(settings.epochs):
        for rows_M in _minibatches(experience, settings, generator):
            optimizer.zero_grad(set_to_none=True)
            result = _accumulate_gradient(policy, experience, rows_M, settings, temperature)
            norm = _finite_gradient_norm(policy, settings.max_grad_norm)
            skipped = result.ratio > settings.ratio_threshold
            if not skipped:
                optimizer.step()
            passes.append(_Pass(result, norm, skipped))
    optimizer.zero_grad(set_to_none=True)
    return _summarise(passes, experience)


@dataclass(frozen=True)
class _PassMeans:
    policy_loss: float
    value_loss: float
    approx_kl: float
    clip_fraction: float
    value_clip_fraction: float
    ratio: float


@dataclass(frozen=True)
class _Pass:
    means: _PassMeans
    gradient_norm: float
    skipped: bool


def _minibatches(experience: Experience, settings: PPOSettings, generator: torch.Generator) -> Iterator[Tensor]:
    """Row indices of each minibatch.

    One minibatch: all rows in order, in the shapes in which they were scored, so that the first ratio is exactly 1.
    Several: stories with a usable verdict, shuffled.
    """
    size = settings.minibatch_size or len(experience.mask_BT)
    if size >= len(experience.mask_BT):
        yield torch.arange(len(experience.mask_BT), device=experience.mask_BT.device)
        return
    rows = experience.mask_BT.sum(dim=1).nonzero().squeeze(-1)
    yield from rows[torch.randperm(len(rows), generator=generator).to(rows.device)].split(size)


def _accumulate_gradient(
    policy: Policy, experience: Experience, rows_M: Tensor, settings: PPOSettings, temperature: float
) -> _PassMeans:
    """Add the minibatch's gradient to the parameters; means over its response tokens."""
    tokens = experience.mask_BT[rows_M].sum()
    sums = torch.zeros(6, dtype=torch.float64)
    for rows in rows_M.split(settings.micro_batch_size):
        mask_BT = experience.mask_BT[rows]
        scores = policy.token_scores(experience.sequences_BS[rows], mask_BT, temperature)
        terms = _loss_terms(scores, experience, rows, settings)
        loss = (terms[0] * mask_BT).sum() / tokens + settings.value_weight * (terms[1] * mask_BT).sum() / tokens
        loss.backward()
        sums += torch.stack([(term.detach() * mask_BT).sum().double() for term in terms]).cpu()
    return _PassMeans(*(sums / tokens.cpu()).tolist())


def _loss_terms(scores: TokenScores, experience: Experience, rows: Tensor, settings: PPOSettings) -> list[Tensor]:
    """Policy loss, value loss, approximate KL, clipped, value clipped, ratio; each [B, T]."""
    old_logprobs_BT, old_values_BT = experience.logprobs_BT[rows], experience.values_BT[rows]
    advantages_BT, returns_BT = experience.advantages_BT[rows], experience.returns_BT[rows]
    log_ratio_BT = scores.logprobs_BT - old_logprobs_BT
    ratio_BT = log_ratio_BT.exp()
    return [
        policy_loss_terms(ratio_BT, advantages_BT, settings.ratio_clip),
        value_loss_terms(scores.values_BT, old_values_BT, returns_BT, settings.value_clip),
        0.5 * log_ratio_BT**2,
        ((ratio_BT - 1.0).abs() > settings.ratio_clip).float(),
        ((scores.values_BT - old_values_BT).abs() > settings.value_clip).float(),
        ratio_BT,
    ]


def _finite_gradient_norm(policy: Policy, max_grad_norm: float | None) -> float:
    """Norm of all gradients, which are then clipped to `max_grad_norm` where one is set."""
    limit = float("inf") if max_grad_norm is None else max_grad_norm
    norm = float(torch.nn.utils.clip_grad_norm_(list(policy.parameters()), limit))
    if not norm < float("inf"):
        raise NotFiniteError(
            f"the gradient has norm {norm} and was not applied. "
            "Lower interact.ppo.learning_rate, or set interact.ppo.max_grad_norm."
        )
    return norm


def _summarise(passes: list[_Pass], experience: Experience) -> UpdateStats:
    def mean(name: str) -> float:
        return float(sum(getattr(p.means, name) for p in passes) / len(passes))

    mask_BT = experience.mask_BT
    errors_BT = experience.returns_BT - experience.values_BT
    error_variance = masked_mean((errors_BT - masked_mean(errors_BT, mask_BT)) ** 2, mask_BT)
    returns_BT = experience.returns_BT
    variance = masked_mean((returns_BT - masked_mean(returns_BT, mask_BT)) ** 2, mask_BT)
    return UpdateStats(
        policy_loss=mean("policy_loss"),
        value_loss=mean("value_loss"),
        approx_kl=mean("approx_kl"),
        clip_fraction=mean("clip_fraction"),
        value_clip_fraction=mean("value_clip_fraction"),
        ratio_first_pass=passes[0].means.ratio,
        explained_variance=float(1.0 - error_variance / variance.clamp(min=1e-12)),
        gradient_norm=sum(p.gradient_norm for p in passes) / len(passes),
        passes_skipped=sum(p.skipped for p in passes),
    )
