"""Fit the weights of coherence's ingredients (data/coherence.json) to ratings.

    python -m services.teacher.judges.rules.fit --ratings hanna.jsonl

The file is HANNA as `fabula teacher calibrate` reads it. Only the *tune* half of its prompts is used, split by a hash.
The same input gives the same file. Needs numpy.

The target is the sum of two standardised means: of the three humans' coherence, and of that of the language models in
the file, because the mean of three humans is very noisy there. Each story's ingredients are multiplied by what the
limits leave of it, as they are when judging. Log words, its square and its cube are fitted beside them and thrown
away, so that no ingredient stands in for length. No weight may be negative: an ingredient counts in the direction that
was given here by hand, or not at all.
"""

import argparse
import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import numpy as np

from services.teacher.judges.rules.curves import Curve, render
from services.teacher.judges.rules.measures import measure
from services.teacher.judges.rules.scoring import unbroken
from services.teacher.judges.rules.solve import Array, ridge, without

DATA = Path(__file__).parent / "data"
PENALTY = 30.0
SMALLEST = 0.025  # share of all weights below which an ingredient is left out, and the rest fitted again
EDGES = (0.10, 0.90)  # quantiles over the stories at which a curve is LOW and HIGH
FOLDS, SHUFFLES = 7, 4
RISING = (
    "topics.fresh", "topics.related", "style.rarity", "style.dialogue", "style.vivid", "style.similes",
    "repetition.moving_ttr", "continuity.linked", "continuity.chained", "continuity.named", "continuity.resolved",
    "discourse.tense", "discourse.arc", "discourse.closure", "discourse.ended", "discourse.connective_kinds",
    "readability.association", "readability.known_words",
)  # fmt: skip
FALLING = (
    "repetition.repeated_bigrams", "repetition.repeated_trigrams", "repetition.repeated_frames",
    "repetition.stale_sentences", "continuity.lone_beings", "continuity.unprepared", "readability.grammar_slips",
    "readability.mark_errors", "readability.case_errors", "readability.listed", "style.unattributed", "style.cliches",
)  # fmt: skip


class Rated(NamedTuple):
    """A story of the tune half: its measures, what the limits leave of it, and the ratings' means."""

    prompt: str
    machine: bool
    log_words: float
    values: dict[str, float]
    left: float
    human: float
    models: float


def tune_half(prompt: str) -> bool:
    """By the parity of the prompt's SHA-256."""
    return int(hashlib.sha256(prompt.encode()).hexdigest(), 16) % 2 == 0


def load(path: Path) -> list[Rated]:
    """The stories of the tune half that tell something.

    Raises:
        OSError, ValueError, KeyError: the file is missing or not in HANNA's format.
    """
    rated = []
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            if not tune_half(row["prompt"]):
                continue
            found = measure(row["story"])
            if not found.tells:
                continue
            values = found.flat()
            rated.append(
                Rated(
                    row["prompt"],
                    row["system"] != "Human",
                    math.log(max(1, len(row["story"].split()))),
                    values,
                    unbroken(values),
                    row["human_mean"]["coherence"],
                    fmean(fmean(given["coherence"]) for given in row["llm"].values()),
                )
            )
    return rated


def standard(values: Array) -> Array:
    """Mean 0, deviation 1."""
    scaled: Array = (values - values.mean()) / max(1e-9, float(values.std()))
    return scaled


def curves_of(rated: Sequence[Rated]) -> dict[str, Curve]:
    """LOW and HIGH at the quantiles; the range where these fall together; no curve for a constant."""
    curves = {}
    for name in (*RISING, *FALLING):
        seen = np.array([r.values[name] for r in rated])
        low, high = (float(x) for x in np.quantile(seen, EDGES))
        if high - low < 1e-6:
            low, high = float(seen.min()), float(seen.max())
        if high - low >= 1e-6:
            curves[name] = Curve(low, high, 0.0) if name in RISING else Curve(high, low, 0.0)
    return curves


def weigh(rated: Sequence[Rated], curves: dict[str, Curve], human: float = 1.0, models: float = 1.0) -> Array:
    """Weights >= 0, in the curves' order."""
    design = np.array([[r.left * c.quality(r.values[name]) for name, c in curves.items()] for r in rated])
    target = human * standard(np.array([r.human for r in rated])) + models * standard(
        np.array([r.models for r in rated])
    )
    words = standard(np.array([r.log_words for r in rated]))
    length = np.column_stack([words**0, words, words**2, words**3])
    design, target = without(length, design), without(length, standard(target))
    weights = ridge(design, target, PENALTY)
    kept = weights >= SMALLEST * weights.sum()
    weights[~kept] = 0.0
    weights[kept] = ridge(design[:, kept], target, PENALTY)
    return weights


def ranks(values: Array) -> Array:
    """Ranks from 1; equal values share their mean rank."""
    _, where, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    shared: Array = (ends - (counts - 1) / 2.0)[where]
    return shared


def agreement(predicted: Array, rated: Sequence[Rated]) -> tuple[float, float]:
    """(Spearman with the human mean, the same at equal log words)."""
    x, y, z = (ranks(np.array(v)) for v in (predicted, [r.human for r in rated], [r.log_words for r in rated]))
    (_, xy, xz), (_, _, yz), _ = np.corrcoef([x, y, z])
    return float(xy), float((xy - xz * yz) / math.sqrt((1.0 - xz**2) * (1.0 - yz**2)))


def validate(rated: Sequence[Rated], curves: dict[str, Curve], human: float, models: float) -> str:
    """Agreement on prompts that were left out: Spearman, partial, partial among machines' stories."""
    prompts = sorted({r.prompt for r in rated})
    found = []
    for seed in range(SHUFFLES):
        order = np.random.default_rng(seed).permutation(len(prompts))
        fold = {prompts[p]: i % FOLDS for i, p in enumerate(order)}
        predicted = np.zeros(len(rated))
        for k in range(FOLDS):
            weights = weigh([r for r in rated if fold[r.prompt] != k], curves, human, models)
            for i, r in enumerate(rated):
                if fold[r.prompt] == k:
                    qualities = (c.quality(r.values[name]) for name, c in curves.items())
                    predicted[i] = r.left * sum(w * q for w, q in zip(weights, qualities, strict=True))
        machines = [i for i, r in enumerate(rated) if r.machine]
        alone = agreement(predicted[machines], [rated[i] for i in machines])[1]
        found.append((*agreement(predicted, rated), alone))
    return "  ".join(f"{x:+.3f}" for x in np.mean(found, axis=0))


def main() -> None:
    """Fit, cross-validate over prompts, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ratings", type=Path, required=True)
    rated = load(parser.parse_args().ratings)
    curves = curves_of(rated)
    print(f"{len(rated)} stories; prompts left out: Spearman, at equal log words, the same among machines' stories")
    for name, human, models in (("humans", 1.0, 0.0), ("language models", 0.0, 1.0), ("both", 1.0, 1.0)):
        print(f"target {name:16s} {validate(rated, curves, human, models)}")
    weights = weigh(rated, curves)
    kept = {f: c._replace(weight=w / weights.sum()) for (f, c), w in zip(curves.items(), weights.tolist(), strict=True)}
    (DATA / "coherence.json").write_text(render(0.0, kept), encoding="utf-8")
    for feature, curve in sorted(kept.items(), key=lambda item: -item[1].weight):
        if curve.weight > 0.0:
            print(f"{feature:30s} {curve.weight:.3f}")


if __name__ == "__main__":
    main()
