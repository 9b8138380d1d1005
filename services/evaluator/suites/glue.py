"""(Super)GLUE by fine-tuning (Wang et al. 2018, 2019), with the tasks and defaults of the BabyLM 2025 pipeline.

Headline: mean accuracy over the tasks measured, as the pipeline's GLUE score. Each task's epoch was chosen by its own
metric on the same validation rows, as there, so scores are a little optimistic. Intervals are over validation rows;
what another seed of the fine-tuning would give is not in them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
import numpy.typing as npt

from fabula_proto import Measure
from services.evaluator.comparison import CHOICES_FILE
from services.evaluator.statistics import RESAMPLES, Estimate, Tally, macro_accuracy, percentile_interval
from services.evaluator.suites.outcome import ACCURACY, SuiteOutcome, as_json, as_measure, single

NAME = "glue"

Metric = Callable[[Sequence[int], Sequence[int]], float]


def accuracy(labels: Sequence[int], predictions: Sequence[int]) -> float:
    """Share of right predictions, 0..1."""
    return sum(a == b for a, b in zip(labels, predictions, strict=True)) / len(labels)


def f1(labels: Sequence[int], predictions: Sequence[int]) -> float:
    """Harmonic mean of precision and recall of class 1, 0..1; 0 where class 1 neither occurs nor is predicted."""
    return float(_f1(confusion(labels, predictions)))


def mcc(labels: Sequence[int], predictions: Sequence[int]) -> float:
    """Matthews correlation of two classes, -1..1; 0 where all labels or all predictions are equal."""
    # In float64 and in this order: printed digits are compared with scikit-learn's.
    tn, fp, fn, tp = (float(count) for count in confusion(labels, predictions))
    n, right = tn + fp + fn + tp, tn + tp
    covariance = right * n - ((tn + fp) * (tn + fn) + (fn + tp) * (fp + tp))
    predicted = n**2 - ((tn + fn) ** 2 + (fp + tp) ** 2)
    true = n**2 - ((tn + fp) ** 2 + (fn + tp) ** 2)
    return covariance / sqrt(true * predicted) if true * predicted else 0.0


def confusion(labels: Sequence[int], predictions: Sequence[int]) -> npt.NDArray[np.int64]:
    """Counts of (label, prediction) = (0, 0), (0, 1), (1, 0), (1, 1); shape 4."""
    cells = 2 * np.asarray(labels, dtype=np.int64) + np.asarray(predictions, dtype=np.int64)
    counts: npt.NDArray[np.int64] = np.bincount(cells, minlength=4)
    return counts


def _f1(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """F1 of confusion counts (..., 4)."""
    fp, fn, tp = counts[..., 1], counts[..., 2], counts[..., 3]
    scores: npt.NDArray[np.float64] = 2 * tp / np.maximum(2 * tp + fp + fn, 1)
    return scores


def _mcc(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """MCC of confusion counts (..., 4)."""
    tn, fp, fn, tp = (counts[..., i].astype(np.float64) for i in range(4))
    scale = np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    quotient: npt.NDArray[np.float64] = (tp * tn - fp * fn) / np.where(scale == 0.0, 1.0, scale)
    return quotient


_BINARY = {"f1": (f1, _f1), "mcc": (mcc, _mcc)}


@dataclass(frozen=True, slots=True)
class Task:
    """The pipeline's defaults for one task. `metric` chooses the epoch; `measures` are reported."""

    labels: int = 2
    batch_size: int = 32
    epochs: int = 10
    metric: Metric = accuracy
    measures: tuple[str, ...] = (ACCURACY, "f1", "mcc")


TASKS: Mapping[str, Task] = {
    "boolq": Task(batch_size=16),
    "mnli": Task(labels=3, measures=(ACCURACY,)),
    "mrpc": Task(metric=f1),
    "multirc": Task(batch_size=16),
    "qqp": Task(metric=f1),
    "rte": Task(),
    "wsc": Task(epochs=30),
}


@dataclass(frozen=True, slots=True)
class Answers:
    """Labels of a task's validation rows and what the fine-tuned model predicts, in order."""

    labels: tuple[int, ...]
    predictions: tuple[int, ...]

    @property
    def tally(self) -> Tally:
        """Right and all rows."""
        pairs = zip(self.labels, self.predictions, strict=True)
        return Tally(sum(label == predicted for label, predicted in pairs), len(self.labels))


def evaluate(answers: Mapping[str, Answers], source: str, seed: int) -> SuiteOutcome:
    """Measures of the tasks in `answers` (at least one): `accuracy`, and `<task>/accuracy`, `/f1`, `/mcc`, `/majority`.

    `majority` is the accuracy of always giving the commonest label of the validation rows.
    """
    measures = {ACCURACY: as_measure(macro_accuracy({task: given.tally for task, given in answers.items()}, seed))}
    files = {}
    for task, given in answers.items():
        measures |= {f"{task}/{name}": measure for name, measure in task_measures(task, given, seed).items()}
        files[f"{task}/results.txt"] = "\n".join(
            f"{name}: {measures[f'{task}/{name}'].value}" for name in TASKS[task].measures
        )
        rows = [{"id": f"{task}_{i}", "pred": predicted} for i, predicted in enumerate(given.predictions)]
        files[f"{task}/predictions.json"] = as_json({task: {"predictions": rows}})
    files[CHOICES_FILE] = as_json(
        {
            task: [int(label != predicted) for label, predicted in zip(given.labels, given.predictions, strict=True)]
            for task, given in answers.items()
        }
    )
    return SuiteOutcome(source=source, headline=ACCURACY, unit=ACCURACY, measures=measures, files=files)


def task_measures(task: str, given: Answers, seed: int) -> dict[str, Measure]:
    """One task's measures, each with a bootstrap interval over its rows."""
    measures = {ACCURACY: single(given.tally, seed)}
    counts = confusion(given.labels, given.predictions)
    for name in TASKS[task].measures[1:]:
        value, of_counts = _BINARY[name]
        # Drawing n rows with replacement is drawing the four counts from a multinomial distribution.
        draws = np.random.default_rng(seed).multinomial(counts.sum(), counts / counts.sum(), size=RESAMPLES)
        low, high = percentile_interval(of_counts(draws))
        estimate = Estimate(value(given.labels, given.predictions), low, high, len(given.labels))
        measures[name] = as_measure(estimate)
    commonest = max(given.labels.count(label) for label in set(given.labels))
    return measures | {"majority": single(Tally(commonest, len(given.labels)), seed)}
