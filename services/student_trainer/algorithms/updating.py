"""One update: passes over a batch, gradients, the optimiser's steps. The same for every algorithm."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from services.student_trainer.advantages import masked_mean
from services.student_trainer.algorithms.experience import Algorithm, Experience, LossTerms
from services.student_trainer.learning_settings import LearningSettings, PPOSettings
from services.student_trainer.policy import Policy, TokenScores


class NotFiniteError(RuntimeError):
    """A loss or gradient is NaN or infinite; the weights have not been touched by it."""


@dataclass(frozen=True)
class UpdateStats:
    """What an update did, means over passes; see StepMetrics for units. None: there is no such thing in this update."""

    policy_loss: float
    value_loss: float | None
    approx_kl: float
    clip_fraction: float
    value_clip_fraction: float | None
    ratio_first_pass: float
    explained_variance: float | None
    gradient_norm: float
    passes_skipped: int
    importance_mean: float | None
    importance_max: float | None
    next_word_loss: float | None = None  # of corpus batches that followed


def make_optimizer(policy: Policy, settings: LearningSettings) -> torch.optim.Adam:
    """Adam, betas 0.9/0.999, eps 1e-8, no decay, no schedule: the paper's."""
    groups = [{"params": list(policy.model.parameters()), "lr": settings.learning_rate}]
    if policy.value_head is not None:
        own_rate = settings.value_learning_rate if isinstance(settings, PPOSettings) else None
        groups.append({"params": list(policy.value_head.parameters()), "lr": own_rate or settings.learning_rate})
    return torch.optim.Adam(groups, betas=(0.9, 0.999), eps=1e-8)


def update(
    algorithm: Algorithm,
    policy: Policy,
    optimizer: torch.optim.Optimizer,
    experience: Experience,
    temperature: float,
    generator: torch.Generator,
) -> UpdateStats:
    """All passes over one batch. `generator` orders the minibatches where there are several.

    A pass is skipped, with no step of the optimiser, where its mean ratio exceeds the algorithm's threshold or its
    gradient is exactly 0.

    Raises:
        NotFiniteError: before a gradient with a NaN or infinity is applied.
    """
    done: list[_Pass] = []
    first_pass = experience.first_pass
    for _ in range(algorithm.passes.epochs):
        for rows_M in _minibatches(experience, algorithm.passes.minibatch_size, generator):
            optimizer.zero_grad(set_to_none=True)
            means = _accumulate_gradient(algorithm, policy, experience, rows_M, temperature, first_pass)
            first_pass = None
            norm = finite_gradient_norm(policy, algorithm)
            threshold = algorithm.passes.ratio_threshold
            skipped = norm == 0.0 or (threshold is not None and means.ratio > threshold)
            if not skipped:
                optimizer.step()
            done.append(_Pass(means, norm, skipped))
    optimizer.zero_grad(set_to_none=True)
    return _summarise(done, experience)


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


def _minibatches(experience: Experience, size: int | None, generator: torch.Generator) -> Iterator[Tensor]:
    """Row indices of each minibatch.

    One minibatch: all rows in order, in the shapes in which they were scored, so that the first ratio is exactly 1.
    Several: stories with a usable verdict, shuffled.
    """
    if size is None or size >= len(experience.mask_RT):
        yield torch.arange(len(experience.mask_RT), device=experience.mask_RT.device)
        return
    rows = experience.mask_RT.sum(dim=1).nonzero().squeeze(-1)
    yield from rows[torch.randperm(len(rows), generator=generator).to(rows.device)].split(size)


def _accumulate_gradient(
    algorithm: Algorithm,
    policy: Policy,
    experience: Experience,
    rows_M: Tensor,
    temperature: float,
    first_pass: TokenScores | None,
) -> _PassMeans:
    """Add the minibatch's gradient to the parameters; losses as the algorithm weighs them, the rest token means.

    Of several processes each computes its share of the rows' gradient; their sum is in all when this returns.

    `first_pass`: this pass's forward, where it has been computed already.
    """
    settings = algorithm.settings
    tokens, mass = experience.mask_RT[rows_M].sum(), experience.mass_R[rows_M].sum()
    sums = torch.zeros(6, dtype=torch.float64)
    for rows, weight in policy.own_micro_batches(rows_M, settings.micro_batch_size):
        seen = experience.at(rows)
        scores = first_pass or policy.token_scores(
            seen.sequences_RS, seen.mask_RT, temperature, entropy=settings.entropy_weight > 0
        )
        terms = _weighted(algorithm.loss(scores, seen), seen.importance_RT)
        loss = (terms.policy_RT * seen.weights_RT).sum() / mass
        if terms.value_RT is not None:
            loss = loss + terms.value_weight * (terms.value_RT * seen.weights_RT).sum() / mass
        if terms.kl_RT is not None:
            loss = loss + (terms.kl_RT * seen.weights_RT).sum() / mass
        if settings.entropy_weight > 0 and scores.entropy_BT is not None:
            loss = loss - settings.entropy_weight * (scores.entropy_BT * seen.weights_RT).sum() / mass
        (loss * weight).backward()
        sums += weight * _sums(terms, scores.logprobs_BT.detach() - seen.logprobs_RT, seen, algorithm.passes.ratio_clip)
    policy.sum_gradients()
    sums = policy.ranks.sum(sums)
    by = torch.stack([mass, mass, tokens, tokens, tokens, tokens]).cpu()
    return _PassMeans(*(sums / by).tolist())


def _weighted(terms: LossTerms, importance_RT: Tensor | None) -> LossTerms:
    if importance_RT is None:
        return terms
    kl_RT = None if terms.kl_RT is None else terms.kl_RT * importance_RT
    return replace(terms, policy_RT=terms.policy_RT * importance_RT, kl_RT=kl_RT)


def _sums(terms: LossTerms, log_ratio_RT: Tensor, seen: Experience, ratio_clip: float | None) -> Tensor:
    """Sums, in the order of _PassMeans, float64 on the CPU."""
    zero_RT = torch.zeros_like(log_ratio_RT)
    ratio_RT = log_ratio_RT.exp()
    weighted = [
        terms.policy_RT.detach() * seen.weights_RT,
        zero_RT if terms.value_RT is None else terms.value_RT.detach() * seen.weights_RT,
        0.5 * log_ratio_RT**2 * seen.mask_RT,
        zero_RT if ratio_clip is None else ((ratio_RT - 1.0).abs() > ratio_clip).float() * seen.mask_RT,
        zero_RT if terms.value_clipped_RT is None else terms.value_clipped_RT * seen.mask_RT,
        ratio_RT * seen.mask_RT,
    ]
    return torch.stack([term.sum().double() for term in weighted]).cpu()


def finite_gradient_norm(policy: Policy, algorithm: Algorithm) -> float:
    """Norm of all gradients, which are then clipped to `max_grad_norm` where one is set.

    Raises:
        NotFiniteError: the norm is no finite number.
    """
    limit = algorithm.settings.max_grad_norm
    total = torch.nn.utils.clip_grad_norm_(list(policy.parameters()), float("inf") if limit is None else limit)
    norm = float(total.full_tensor() if isinstance(total, DTensor) else total)
    if not norm < float("inf"):
        raise NotFiniteError(
            f"the gradient has norm {norm} and was not applied. "
            f"Lower interact.{algorithm.section}.learning_rate, or set interact.{algorithm.section}.max_grad_norm."
        )
    return norm


def _summarise(passes: list[_Pass], experience: Experience) -> UpdateStats:
    def mean(name: str) -> float:
        return float(sum(getattr(p.means, name) for p in passes) / len(passes))

    critic, weights_RT = experience.values_RT is not None, experience.importance_RT
    return UpdateStats(
        policy_loss=mean("policy_loss"),
        value_loss=mean("value_loss") if critic else None,
        approx_kl=mean("approx_kl"),
        clip_fraction=mean("clip_fraction"),
        value_clip_fraction=mean("value_clip_fraction") if critic else None,
        ratio_first_pass=passes[0].means.ratio,
        explained_variance=_explained_variance(experience),
        gradient_norm=sum(p.gradient_norm for p in passes) / len(passes),
        passes_skipped=sum(p.skipped for p in passes),
        importance_mean=None if weights_RT is None else float(masked_mean(weights_RT, experience.mask_RT)),
        importance_max=None if weights_RT is None else float(weights_RT[experience.mask_RT > 0].max()),
    )


def _explained_variance(experience: Experience) -> float | None:
    mask_RT, returns_RT, values_RT = experience.mask_RT, experience.returns_RT, experience.values_RT
    if returns_RT is None or values_RT is None:
        return None
    errors_RT = returns_RT - values_RT
    error_variance = masked_mean((errors_RT - masked_mean(errors_RT, mask_RT)) ** 2, mask_RT)
    variance = masked_mean((returns_RT - masked_mean(returns_RT, mask_RT)) ** 2, mask_RT)
    return float(1.0 - error_variance / variance.clamp(min=1e-12))
