"""Two convex fits with weights that may not be negative. Pure functions; numpy is needed to fit, not to judge."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def ridge(design_NK: Array, target_N: Array, penalty: float, rounds: int = 2000) -> Array:
    """Weights >= 0 that minimise |design w - target|^2 + penalty |w|^2, by coordinate descent."""
    gram = design_NK.T @ design_NK + penalty * np.eye(design_NK.shape[1])
    pull = design_NK.T @ target_N
    weights = np.zeros(len(pull))
    for _ in range(rounds):
        before = weights.copy()
        for k in range(len(pull)):
            weights[k] = max(0.0, weights[k] + (pull[k] - gram[k] @ weights) / gram[k, k])
        if np.abs(weights - before).max() < 1e-9:
            break
    return weights


def without(design_NJ: Array, values: Array) -> Array:
    """What is left of `values` (N or N, K) once the columns of the design have explained what they can."""
    basis, _ = np.linalg.qr(design_NJ)
    left: Array = values - basis @ (basis.T @ values)
    return left


def logistic(
    design_NK: Array, label_N: Array, share_N: Array, penalty: float, rounds: int = 20_000
) -> tuple[float, Array]:
    """(bias, weights >= 0) of a logistic regression with shares that sum to 1, by accelerated projected descent."""
    inputs = np.column_stack([np.ones(len(label_N)), design_NK])
    pull = np.r_[0.0, np.full(design_NK.shape[1], penalty)]
    step = 1.0 / (0.25 * np.linalg.norm(np.sqrt(share_N)[:, None] * inputs, 2) ** 2 + penalty)
    weights = ahead = np.zeros(inputs.shape[1])
    for i in range(rounds):
        chance = 1.0 / (1.0 + np.exp(-np.clip(inputs @ ahead, -40.0, 40.0)))
        new = ahead - step * (inputs.T @ (share_N * (chance - label_N)) + pull * ahead)
        new[1:] = np.maximum(0.0, new[1:])
        ahead = new + i / (i + 3.0) * (new - weights)
        weights = new
    return float(weights[0]), weights[1:]
