"""Reading times (de Varda et al. 2023): does a word's surprisal explain how long people look at it?

Linear models predict each measure of 205 sentences' words from frequency, length and place in the sentence, with all
products of two; the score is the percentage of the variance left by these that the word's surprisal explains.
`eye_tracking` is the mean over the four eye-tracking measures; `self_paced` is for self-paced reading and gives the
baseline the word before it too (length and surprisal: spillover). Both as the BabyLM 2025 pipeline defines them.

The headline is `eye_tracking`: it averages four measures. Intervals resample whole sentences; R2 never falls when the
data are resampled, so an interval leans upwards where the value is near 0. What the headline was in each resample is
kept, so that two checkpoints can be compared on the same ones.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, nan

import numpy as np

from fabula_proto import Measure
from services.evaluator.comparison import RESAMPLES_FILE
from services.evaluator.errors import SuiteFailedError
from services.evaluator.regression import (
    Gain,
    IntArray,
    cluster_counts,
    cluster_numbers,
    gain,
    interactions,
    partial_r2_replicates,
)
from services.evaluator.statistics import FloatArray, percentile_interval
from services.evaluator.suites.outcome import SuiteOutcome

NAME = "reading"
HEADLINE = "eye_tracking"
RESAMPLES = 2_000  # of 22 regressions each
SELF_PACED = "self_paced_reading_time"
EYE_TRACKING = ("RTfirstfix", "RTfirstpass", "RTgopast", "RTrightbound")
DEPENDENT = (*EYE_TRACKING, SELF_PACED, "ELAN", "LAN", "N400", "P600", "EPNP", "PNP")
CONTROLS = ("Subtlex_log10", "length", "context_length")
SPILLOVER = (*CONTROLS, "prev_length")
NUMBERS = (*DEPENDENT, *SPILLOVER)


@dataclass(frozen=True, slots=True)
class ReadWord:
    """One word that people read, after `item`. `numbers` holds NUMBERS by name, NaN where there is none."""

    item: str
    word: str
    prev_item: str | None
    prev_word: str
    sentence: str
    numbers: dict[str, float]


@dataclass(frozen=True, slots=True)
class ReadingData:
    """The words and the file they are from."""

    words: tuple[ReadWord, ...]
    source: str


def evaluate(data: ReadingData, surprisals: Sequence[float], previous: Sequence[float], seed: int) -> SuiteOutcome:
    """Regress every measure on the surprisals.

    Args:
        data: N words.
        surprisals: Nats, length N.
        previous: The surprisal of the word before, NaN where there is none; length N.
        seed: Of the bootstrap.

    Raises:
        SuiteFailedError: the data do not support a regression.
    """
    table = {name: np.array([word.numbers[name] for word in data.words]) for name in NUMBERS}
    table |= {"pred": np.asarray(surprisals, dtype=float), "prev_pred": np.asarray(previous, dtype=float)}
    sentences_N = cluster_numbers([word.sentence for word in data.words])
    counts_RC = cluster_counts(int(sentences_N.max()) + 1, seed, RESAMPLES)
    fits = {
        spillover: {name: _fit(table, name, spillover, sentences_N, counts_RC) for name in DEPENDENT}
        for spillover in (False, True)
    }
    own, spilt = ({name: found for name, (found, _) in fits[spillover].items()} for spillover in (False, True))
    eye_tracking = [fits[False][name] for name in EYE_TRACKING]
    measures = {
        HEADLINE: _measure(eye_tracking),
        "self_paced": _measure([fits[True][SELF_PACED]]),
    }
    measures |= {f"own/{name}": _measure([fit]) for name, fit in fits[False].items()}
    measures |= {f"spillover/{name}": _measure([fit]) for name, fit in fits[True].items()}
    return SuiteOutcome(
        source=data.source,
        headline=HEADLINE,
        unit="percent",
        measures=measures,
        files=_predictions(data, surprisals, previous)
        | {
            "correlations.txt": "".join(
                f"{name}\t{_correlation(table['pred'], table[name]):.4f}\n" for name in DEPENDENT
            ),
            "predictive_power.jsonl": _power(own),
            "predictive_power_spillover.jsonl": _power(spilt),
            RESAMPLES_FILE: json.dumps({"drawn": _drawn(data, seed), "values": _resampled(eye_tracking).tolist()}),
            "report.txt": f"EYE TRACKING SCORE: {measures[HEADLINE].value:.2f}\n"
            f"SELF-PACED READING SCORE: {measures['self_paced'].value:.2f}\n",
        },
    )


def _fit(
    table: dict[str, FloatArray], name: str, spillover: bool, sentences_N: IntArray, counts_RC: FloatArray
) -> tuple[Gain, FloatArray]:
    """The gain by the surprisal, over the rows where nothing is missing, and the resamples' partial R2."""
    controls = (*SPILLOVER, "prev_pred") if spillover else CONTROLS
    whole = np.all([np.isfinite(table[column]) for column in (name, "pred", *controls)], axis=0)
    outcome_N, predictor_N = table[name][whole], table["pred"][whole]
    baseline_NK = interactions(np.column_stack([table[column][whole] for column in controls]))
    try:
        found = gain(outcome_N, baseline_NK, predictor_N)
        return found, partial_r2_replicates(outcome_N, baseline_NK, predictor_N, counts_RC, sentences_N[whole])
    except ValueError as error:
        raise SuiteFailedError(f"{name} cannot be regressed on the surprisals: {error}") from error


def _measure(fits: Sequence[tuple[Gain, FloatArray]]) -> Measure:
    """The mean percentage over several regressions on the same resamples; `n` is the smallest number of words."""
    value = sum(found.partial_r2 * 100 for found, _ in fits) / len(fits)
    low, high = percentile_interval(_resampled(fits))
    return Measure(value=value, low=low, high=high, n=min(found.n for found, _ in fits))


def _resampled(fits: Sequence[tuple[Gain, FloatArray]]) -> FloatArray:
    """Their mean percentage in each resample."""
    mean_R: FloatArray = np.mean([replicates for _, replicates in fits], axis=0) * 100
    return mean_R


def _drawn(data: ReadingData, seed: int) -> str:
    """The same for the same resamples of the same words."""
    return hashlib.sha256(f"{seed} {RESAMPLES} {data.words}".encode()).hexdigest()[:32]


def _correlation(first_N: FloatArray, second_N: FloatArray) -> float:
    both = np.isfinite(first_N) & np.isfinite(second_N)
    if np.ptp(first_N[both]) == 0 or np.ptp(second_N[both]) == 0:
        return nan
    return float(np.corrcoef(first_N[both], second_N[both])[0, 1])


def _power(gains: dict[str, Gain]) -> str:
    return "".join(
        json.dumps(
            {
                "Predicted variable": name,
                "Coefficient": found.coefficient,
                "Number of standard deviations": found.t,
                "P-value": found.p,
                "R2": found.r2,
                "Change in R2 from baseline": found.r2 - found.r2_baseline,
                "AIC": found.aic,
                "Change in AIC from baseline": found.aic - found.aic_baseline,
            }
        )
        + "\n"
        for name, found in gains.items()
    )


def _predictions(data: ReadingData, surprisals: Sequence[float], previous: Sequence[float]) -> dict[str, str]:
    """The pipeline's two files. It writes surprisals under `Logprob`, and NaN where there is no word before."""
    before = [value if isfinite(value) else nan for value in previous]
    lines = [
        {"Index": index, "Sentence": word.item, "Word": word.word, "Logprob": value, "Prev_Logprob": earlier}
        for index, (word, value, earlier) in enumerate(zip(data.words, surprisals, before, strict=True))
    ]
    rows = [
        {"id": index, "pred": value, "prev_pred": earlier}
        for index, (value, earlier) in enumerate(zip(surprisals, before, strict=True))
    ]
    return {
        "prediction.jsonl": "".join(json.dumps(line) + "\n" for line in lines),
        "predictions.json": json.dumps({"reading": {"predictions": rows}}),
    }
