"""Least squares against values that statsmodels gave, against its normal equations, and resample by resample."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import linregress

from services.evaluator.regression import (
    cluster_counts,
    cluster_numbers,
    gain,
    interactions,
    partial_r2_replicates,
)
from services.evaluator.statistics import FloatArray


def small_table() -> tuple[FloatArray, FloatArray, FloatArray]:
    i = np.arange(30.0)
    a, b, c = 8 + 3 * np.sin(1.7 * i + 1), 1 + np.floor(5 * np.abs(np.sin(2.3 * i))), i % 9 + 1
    return 200 + 30 * np.sin(i) + 2 * i, np.column_stack([a, b, c]), 10 + 4 * np.cos(0.9 * i)


def test_values_are_those_of_statsmodels() -> None:
    """statsmodels 0.14: `y ~ a + b + c + a:b + a:c + b:c`, and the same `+ pred`."""
    outcome_N, controls_NK, predictor_N = small_table()
    found = gain(outcome_N, interactions(controls_NK), predictor_N)
    assert found.n == 30
    assert (found.r2_baseline, found.r2) == pytest.approx((0.27390353367556364, 0.4735756615781239), rel=1e-12)
    assert (found.aic_baseline, found.aic) == pytest.approx((286.0398217522145, 278.39256379690926), rel=1e-12)
    assert found.coefficient == pytest.approx(4.272878478027611, rel=1e-11)
    assert (found.t, found.p) == pytest.approx((2.8886976194042058, 0.008523540958376742), rel=1e-11)
    assert found.partial_r2 == pytest.approx((0.4735756615781239 - 0.27390353367556364) / (1 - 0.27390353367556364))


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(20, 60), st.floats(1e-3, 1e4))
def test_gain_solves_the_normal_equations_at_any_scale(seed: int, controls: int, n: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    baseline_NK = interactions(rng.normal(3.0, 1.0, (n, controls)) * scale)
    predictor_N = rng.normal(10.0, 2.0, n)
    outcome_N = baseline_NK[:, 1] / scale + 0.3 * predictor_N + rng.normal(0.0, 1.0, n)
    found = gain(outcome_N, baseline_NK, predictor_N)
    # Frisch, Waugh and Lovell: what the baseline leaves of the outcome, on what it leaves of the predictor.
    basis_NK, _ = np.linalg.qr(baseline_NK / np.linalg.norm(baseline_NK, axis=0))
    left_y, left_x = (v - basis_NK @ (basis_NK.T @ v) for v in (outcome_N, predictor_N))
    line = linregress(left_x, left_y)
    assert found.coefficient == pytest.approx(line.slope, rel=1e-6, abs=1e-9)
    assert found.partial_r2 == pytest.approx(line.rvalue**2, rel=1e-5, abs=1e-9)
    assert found.t**2 == pytest.approx((n - baseline_NK.shape[1] - 1) / (1 / line.rvalue**2 - 1), rel=1e-5, abs=1e-9)


def test_resamples_equal_fits_on_the_rows_they_drew() -> None:
    outcome_N, controls_NK, predictor_N = small_table()
    baseline_NK = interactions(controls_NK[:, :1])
    clusters_N = cluster_numbers([f"sentence {i // 3}" for i in range(30)])
    counts_RC = cluster_counts(10, seed=3, resamples=20)
    assert counts_RC.sum(axis=1).tolist() == [10.0] * 20
    replicates_R = partial_r2_replicates(outcome_N, baseline_NK, predictor_N, counts_RC, clusters_N)
    for counts_C, replicate in zip(counts_RC, replicates_R, strict=True):
        rows = np.repeat(np.arange(30), counts_C.astype(int)[clusters_N])
        drawn = gain(outcome_N[rows], baseline_NK[rows], predictor_N[rows])
        assert replicate == pytest.approx(drawn.partial_r2, rel=1e-9)


def test_what_cannot_be_fitted_is_said() -> None:
    outcome_N, controls_NK, predictor_N = small_table()
    baseline_NK = interactions(controls_NK)
    with pytest.raises(ValueError, match="8 rows for 8 coefficients"):
        gain(outcome_N[:8], baseline_NK[:8], predictor_N[:8])
    with pytest.raises(ValueError, match=r"the outcome is 5\.0 in all 30 rows"):
        gain(np.full(30, 5.0), baseline_NK, predictor_N)
    with pytest.raises(ValueError, match="combination of the 7 others"):
        gain(outcome_N, baseline_NK, 2 * controls_NK[:, 0] - 1)
    few = slice(12)
    counts_RC = cluster_counts(3, seed=0, resamples=50)
    with pytest.raises(ValueError, match="12 rows of 3 clusters are too few to resample a regression with 8"):
        partial_r2_replicates(outcome_N[few], baseline_NK[few], predictor_N[few], counts_RC, np.arange(12) // 4)
