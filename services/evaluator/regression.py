"""Ordinary least squares: what one more predictor explains. Pure.

Values as statsmodels gives them for `OLS`: R2 against the mean, AIC of the Gaussian likelihood with the error variance
left out of the count of parameters, t and two-sided p on n - rank degrees of freedom.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt
import scipy

from services.evaluator.statistics import RESAMPLES, FloatArray

IntArray = npt.NDArray[np.int64]

_SINGULAR = 1e-12  # share of a column that the others leave, below which rounding alone is left


@dataclass(frozen=True, slots=True)
class Gain:
    """A model with one predictor more than its baseline, both fitted on the same n rows."""

    n: int
    r2_baseline: float
    r2: float
    aic_baseline: float
    aic: float
    coefficient: float
    t: float
    p: float

    @property
    def partial_r2(self) -> float:
        """Share (0..1) of the baseline's unexplained variance that the predictor explains."""
        return (self.r2 - self.r2_baseline) / (1.0 - self.r2_baseline)


def interactions(variables_NK: FloatArray) -> FloatArray:
    """Design matrix with intercept, K main effects and all products of two: shape (N, 1 + K + K (K - 1) / 2)."""
    columns = [np.ones(len(variables_NK)), *variables_NK.T]
    columns += [variables_NK[:, i] * variables_NK[:, j] for i, j in combinations(range(variables_NK.shape[1]), 2)]
    return np.column_stack(columns)


def gain(outcome_N: FloatArray, baseline_NK: FloatArray, predictor_N: FloatArray) -> Gain:
    """Fit the outcome on the baseline's columns (intercept included), and on these and the predictor.

    Raises:
        ValueError: there are no more rows than columns, the outcome is constant, or the predictor is a combination of
            the baseline's columns: nothing could be said about it.
    """
    model_NK = np.column_stack([baseline_NK, predictor_N])
    n, columns = model_NK.shape
    if n <= columns:
        raise ValueError(f"{n} rows for {columns} coefficients; a regression needs more rows than coefficients")
    total = float(((outcome_N - outcome_N.mean()) ** 2).sum())
    if total == 0.0:
        raise ValueError(f"the outcome is {outcome_N[0]} in all {n} rows; a regression needs one that varies")
    r2_baseline, aic_baseline, _, rank = _fit(outcome_N, baseline_NK, total)
    r2, aic, coefficients, full_rank = _fit(outcome_N, model_NK, total)
    if full_rank == rank:
        raise ValueError(f"the predictor is a combination of the {rank} others in these {n} rows; it adds nothing")
    inverse = np.linalg.pinv(model_NK)
    deviation = float(np.sqrt((1.0 - r2) * total / (n - full_rank) * (inverse[-1] ** 2).sum()))
    statistic = float(coefficients[-1]) / deviation
    p = 2.0 * float(scipy.stats.t.sf(abs(statistic), n - full_rank))
    return Gain(n, r2_baseline, r2, aic_baseline, aic, float(coefficients[-1]), statistic, p)


def _fit(outcome_N: FloatArray, design_NK: FloatArray, total: float) -> tuple[float, float, FloatArray, int]:
    """R2, AIC, coefficients and rank. Columns are scaled to length 1 first: raw ones differ by orders of magnitude."""
    scale_K = np.linalg.norm(design_NK, axis=0)
    scale_K[scale_K == 0.0] = 1.0
    scaled_K, _, rank, _ = np.linalg.lstsq(design_NK / scale_K, outcome_N, rcond=None)
    coefficients_K = scaled_K / scale_K
    error = float(((outcome_N - design_NK @ coefficients_K) ** 2).sum())
    n = len(outcome_N)
    log_likelihood = -n / 2 * (np.log(2 * np.pi * error / n) + 1)
    return 1.0 - error / total, float(2 * rank - 2 * log_likelihood), coefficients_K, int(rank)


def partial_r2_replicates(
    outcome_N: FloatArray,
    baseline_NK: FloatArray,
    predictor_N: FloatArray,
    counts_RC: FloatArray,
    cluster_N: IntArray,
) -> FloatArray:
    """Partial R2 of the predictor in R resamples of whole clusters; shape (R,).

    A resample is known by how often it drew each cluster, and least squares needs only the sums of products, so each
    cluster's are computed once. In the Cholesky factor of a resample's sums, with the columns in the order baseline,
    predictor, outcome, the last row holds what the predictor and then nothing explains of the outcome.

    Args:
        outcome_N, baseline_NK, predictor_N: As in `gain`.
        counts_RC: How often resample r drew cluster c.
        cluster_N: Each row's cluster, 0..C-1.

    Raises:
        ValueError: a resample holds too little for a fit.
    """
    # An orthonormal basis spans the same columns and keeps the sums of products well conditioned.
    basis_NK, _ = np.linalg.qr(np.column_stack([baseline_NK, predictor_N]))
    columns_NK = np.column_stack([basis_NK, outcome_N / np.linalg.norm(outcome_N)])
    size = columns_NK.shape[1]
    products_CKK = np.zeros((counts_RC.shape[1], size, size))
    np.add.at(products_CKK, cluster_N, columns_NK[:, :, None] * columns_NK[:, None, :])
    sums_RKK = (counts_RC @ products_CKK.reshape(len(products_CKK), -1)).reshape(-1, size, size)
    too_few = ValueError(
        f"{len(outcome_N)} rows of {len(products_CKK)} clusters are too few to resample a regression with {size - 1} "
        "coefficients; give more data"
    )
    try:
        factor_RKK = np.linalg.cholesky(sums_RKK)
    except np.linalg.LinAlgError:
        raise too_few from None
    pivots_RK, norms_RK = (np.diagonal(m_RKK, axis1=1, axis2=2)[:, :-1] for m_RKK in (factor_RKK, sums_RKK))
    if bool((pivots_RK**2 < _SINGULAR * norms_RK).any()):
        raise too_few
    explained_R, left_R = factor_RKK[:, -1, -2] ** 2, factor_RKK[:, -1, -1] ** 2
    replicates: FloatArray = explained_R / (explained_R + left_R)
    return replicates


def cluster_counts(clusters: int, seed: int, resamples: int = RESAMPLES) -> FloatArray:
    """How often each of `clusters` was drawn when as many were drawn with replacement; shape (resamples, clusters)."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(clusters, np.full(clusters, 1.0 / clusters), size=resamples).astype(np.float64)


def cluster_numbers(names: Sequence[str]) -> IntArray:
    """Each row's cluster as a number from 0 on, by name."""
    return np.unique(np.asarray(names), return_inverse=True)[1].astype(np.int64)
