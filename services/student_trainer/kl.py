"""KL(policy || reference) from the policy's own samples, and the controller of its coefficient. Pure.

The estimators are those of Schulman's note "Approximating KL divergence" (joschu.net/blog/kl-approx.html).
"""

from torch import Tensor

from services.student_trainer.learning_settings import KLEstimator


def kl_terms(logprobs_BT: Tensor, reference_logprobs_BT: Tensor, estimator: KLEstimator) -> Tensor:
    """Estimates [B, T] of the KL at each sampled token, in nats, with d = logp - reference logp.

    k1, `d`: unbiased, may be negative. k2, `d^2 / 2`: biased, never negative. k3, `exp(-d) - 1 + d`: unbiased and never
    negative, but of heavy tail where the reference finds a token far likelier than the policy does.

    In a reward the value counts, and k1 and k3 are the unbiased ones. In a loss the gradient counts: on the policy's
    own samples that of k1 is 0 on average, that of k2 is the KL's own, that of k3 belongs to KL(reference || policy).
    """
    d_BT = logprobs_BT - reference_logprobs_BT
    if estimator == "k1":
        return d_BT
    if estimator == "k2":
        return 0.5 * d_BT**2
    return (-d_BT).exp() - 1.0 + d_BT


class KLController:
    """Adaptive KL coefficient of Ziegler et al. 2019 (arXiv 1909.08593, section 2.2), as in TRL 0.9.4, with a floor."""

    def __init__(self, coefficient: float, *, adaptive: bool, target: float, horizon: int, floor: float = 0.0) -> None:
        self.coefficient = coefficient
        self.adaptive = adaptive
        self.target = target
        self.horizon = horizon
        self.floor = floor

    def update(self, kl: float, stories: int) -> None:
        """After an update: `kl` in nats per story, `stories` in the batch."""
        if self.adaptive:
            error = min(max(kl / self.target - 1.0, -0.2), 0.2)
            self.coefficient = max(self.floor, self.coefficient * (1.0 + error * stories / self.horizon))
