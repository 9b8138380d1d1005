"""What a map from one judge's reward to another's scale should be: three ways, on judges of one ratings file.

    python -m bench.reward_maps --ratings hanna.jsonl

For every ordered pair of the file's judges (people's mean and the language models) the map is fitted on half of the
prompts and measured on the other half. `spread` is the standard deviation of mapped rewards over that of the target:
what advantages are multiplied with after a swap; `off by` is the factor by which it misses 1, up or down. Both are
geometric means, the others means. Needs scipy.
"""

import argparse
from collections.abc import Callable
from itertools import permutations
from pathlib import Path
from statistics import fmean

import numpy as np
from scipy.optimize import isotonic_regression

from services.teacher.calibration.linking import apply_knots, equipercentile, scale_error
from services.teacher.calibration.ratings import HUMAN, criteria_of, half, judges_of, read_ratings
from services.teacher.calibration.statistics import FloatArray

Fit = Callable[[FloatArray, FloatArray], Callable[[FloatArray], FloatArray]]


def none(_: FloatArray, __: FloatArray) -> Callable[[FloatArray], FloatArray]:
    """B's reward as it is."""
    return lambda b: b


def linked(a: FloatArray, b: FloatArray) -> Callable[[FloatArray], FloatArray]:
    """What `fabula teacher compare` fits."""
    knots = equipercentile(a, b)
    return lambda fresh: apply_knots(knots, fresh)


def isotonic(a: FloatArray, b: FloatArray) -> Callable[[FloatArray], FloatArray]:
    """Least squares among rising maps."""
    order = np.argsort(b)
    fitted = np.asarray(isotonic_regression(a[order]).x)
    return lambda fresh: np.interp(fresh, b[order], fitted)


def linear(a: FloatArray, b: FloatArray) -> Callable[[FloatArray], FloatArray]:
    """Mean and standard deviation set equal, cut off at 0 and 1."""
    return lambda fresh: np.clip(a.mean() + (fresh - b.mean()) * a.std() / b.std(), 0.0, 1.0)


WAYS: dict[str, Fit] = {"as it is": none, "linear": linear, "equipercentile": linked, "isotonic": isotonic}


def main() -> None:
    """Print a line a way: mean over all pairs of judges and both directions of the split."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ratings", type=Path, required=True)
    rated = read_ratings(parser.parse_args().ratings)
    judges = [HUMAN, *judges_of(rated)]
    verdicts = {judge: [row.verdict(judge, criteria_of(rated, judge)) for row in rated] for judge in judges}
    kept = [i for i in range(len(rated)) if all(verdicts[judge][i].reward is not None for judge in judges)]
    rewards = {judge: np.asarray([verdicts[judge][i].reward for i in kept], dtype=np.float64) for judge in judges}
    tune_N = np.asarray([half(rated[i].prompt) == "tune" for i in kept])
    print(
        f"{len(kept)} stories, {len(judges)} judges\n\n| map | \\|bias\\| | spread | off by | distance | RMSE a story |"
    )
    print("|---|---:|---:|---:|---:|---:|")
    for name, fit in WAYS.items():
        errors = [
            scale_error(rewards[a][~fitted], fit(rewards[a][fitted], rewards[b][fitted])(rewards[b][~fitted]))
            for a, b in permutations(judges, 2)
            for fitted in (tune_N, ~tune_N)
        ]
        log_spread = np.asarray([np.log(error.spread or np.nan) for error in errors])
        cells = (
            fmean(abs(error.bias) for error in errors),
            float(np.exp(log_spread.mean())),
            float(np.exp(np.abs(log_spread).mean())),
            fmean(error.distance for error in errors),
            fmean(error.rmse for error in errors),
        )
        print(f"| {name} | {' | '.join(f'{cell:.3f}' for cell in cells)} |")


if __name__ == "__main__":
    main()
