"""Age of acquisition (Chang & Bergen 2022): are words learned in the order in which children learn them?

On one checkpoint: the surprisal of 504 words that parents are asked about (CDI) in contexts of natural text, as the
BabyLM 2025 pipeline computes it. The headline, `surprisal`, is its mean over words in nats.

Over checkpoints (`fit`): each word's age and its correlation with the children's, twice:
- `pipeline`: the BabyLM 2025 pipeline's arithmetic, its headline. It fits a curve through all single contexts and takes
  log2(300,000) for chance, beside surprisals in nats.
- `paper`: the paper's. One curve through the means over contexts, and chance is ln of the checkpoint's vocabulary.
Words without a curve, or without an age of children, are listed and take no part.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, log, log2, nan
from typing import Any

import numpy as np

from services.evaluator.acquisition import Agreement, acquired_at, agreement
from services.evaluator.engine import ItemsDone, Scorer
from services.evaluator.errors import SuiteFailedError
from services.evaluator.items import Candidate, Item
from services.evaluator.statistics import mean_interval
from services.evaluator.suites.outcome import SuiteOutcome, as_measure

NAME = "aoa"
HEADLINE = "surprisal"
SURPRISALS = "surprisal.json"
CHECKPOINT = "checkpoint.json"
MINIMUM_CHECKPOINTS = 5  # a sigmoid has four parameters
PIPELINES_CHANCE = log2(300_000)


@dataclass(frozen=True, slots=True)
class Contexts:
    """Words, each with the texts that it is asked for after, and the file they are from."""

    words: Mapping[str, tuple[str, ...]]
    source: str

    def items(self) -> list[Item]:
        """One item a context, in the pipeline's order."""
        return [
            Item(uid=word, candidates=(Candidate(f"{context.strip()} ", word.strip()),))
            for word, contexts in self.words.items()
            for context in contexts
        ]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Which checkpoint was measured: its name, the words it has read, the tokens it knows."""

    step: str
    words_read: int
    vocabulary: int


@dataclass(frozen=True, slots=True)
class Curve:
    """One word's surprisals (nats): a tuple of contexts for each checkpoint, NaN where a context was left out."""

    word: str
    surprisals: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class WordAges:
    """One word's ages: log10 words read by the model, by either arithmetic, and the children's months."""

    word: str
    pipeline: float | None
    paper: float | None
    children: float | None


@dataclass(frozen=True, slots=True)
class AoaResult:
    """How well a model's order of learning words is that of children; a correlation is none below 3 words."""

    checkpoints: tuple[Checkpoint, ...]
    words: tuple[WordAges, ...]
    pipeline: Agreement | None
    paper: Agreement | None

    def without_curve(self) -> tuple[str, ...]:
        """Words whose age the pipeline's arithmetic does not give."""
        return tuple(word.word for word in self.words if word.pipeline is None)

    def without_children(self) -> tuple[str, ...]:
        """Words for which there is no age of children."""
        return tuple(word.word for word in self.words if word.children is None)


def evaluate(
    contexts: Contexts,
    checkpoint: Checkpoint,
    model_name: str,
    scorer: Scorer,
    left_out: set[int],
    seed: int,
    done: ItemsDone,
) -> SuiteOutcome:
    """One checkpoint's surprisals.

    Args:
        contexts: What is asked.
        checkpoint: Which one it is.
        model_name: What the pipeline calls the model.
        scorer: The engine.
        left_out: Indices into `contexts.items()` that do not fit the checkpoint; their surprisal is NaN.
        seed: Of the interval.
        done: Progress.

    Raises:
        SuiteFailedError: nothing is left to ask.
    """
    items = contexts.items()
    asked = [i for i in range(len(items)) if i not in left_out]
    if not asked:
        raise SuiteFailedError(f"none of {len(items)} contexts of {contexts.source} fits the checkpoint")
    scores = scorer.score([items[i] for i in asked], done)
    found = dict(zip(asked, (-score for (score,) in scores), strict=True))
    surprisals = iter([found.get(i, nan) for i in range(len(items))])
    rows, means = [], []
    for word, texts in contexts.words.items():
        values = [next(surprisals) for _ in texts]
        rows += [_row(checkpoint, word, i, *pair) for i, pair in enumerate(zip(texts, values, strict=True))]
        measured = [value for value in values if isfinite(value)]
        means += [sum(measured) / len(measured)] if measured else []
    return SuiteOutcome(
        source=contexts.source,
        headline=HEADLINE,
        unit="nats",
        measures={HEADLINE: as_measure(mean_interval(means, seed))},
        files={
            SURPRISALS: _document(rows, model_name, 1),
            CHECKPOINT: json.dumps(
                {"step": checkpoint.step, "words_read": checkpoint.words_read, "vocabulary": checkpoint.vocabulary}
            ),
        },
    )


def merged(documents: Sequence[Mapping[str, Any]], model_name: str) -> str:
    """The pipeline's one surprisal.json of all checkpoints from the documents of each, in the order given."""
    return _document([row for document in documents for row in document["results"]], model_name, len(documents))


def _row(checkpoint: Checkpoint, word: str, index: int, context: str, surprisal: float) -> dict[str, Any]:
    return {
        "step": checkpoint.step,
        "word_count": checkpoint.words_read,
        "target_word": word,
        "context_id": index,
        "context": context,
        "surprisal": surprisal,
    }


def _document(rows: Sequence[Mapping[str, Any]], model_name: str, steps: int) -> str:
    metadata = {
        "model_name": model_name,
        "use_bos_only": False,
        "total_steps": steps,
        "completed_steps": len({row["step"] for row in rows}),
    }
    return json.dumps({"metadata": metadata, "results": list(rows)}, indent=2)


def fit(
    checkpoints: Sequence[Checkpoint], curves: Sequence[Curve], children: Mapping[str, float], seed: int = 0
) -> AoaResult:
    """Ages of all words and their correlation with the children's.

    Args:
        checkpoints: In the order of the words read.
        curves: A word each, with its surprisals at each of the checkpoints.
        children: Word to age in months.
        seed: Of the intervals.

    Raises:
        SuiteFailedError: there are fewer than MINIMUM_CHECKPOINTS different numbers of words read.
    """
    stages = len({checkpoint.words_read for checkpoint in checkpoints})
    if stages < MINIMUM_CHECKPOINTS:
        raise SuiteFailedError(
            f"{stages} checkpoints differ in the words they have read; a curve of four parameters needs at least "
            f"{MINIMUM_CHECKPOINTS}: evaluate more checkpoints on {NAME}"
        )
    words = tuple(_ages(checkpoints, curve, children) for curve in curves)
    pipeline = [(w.pipeline, w.children) for w in words if w.pipeline is not None and w.children is not None]
    paper = [(w.paper, w.children) for w in words if w.paper is not None and w.children is not None]
    return AoaResult(
        tuple(checkpoints),
        words,
        agreement([age for age, _ in pipeline], [months for _, months in pipeline], seed),
        agreement([age for age, _ in paper], [months for _, months in paper], seed),
    )


def _ages(checkpoints: Sequence[Checkpoint], curve: Curve, children: Mapping[str, float]) -> WordAges:
    points = [(c.words_read, s) for c, row in zip(checkpoints, curve.surprisals, strict=True) for s in row]
    rows = [[value for value in row if isfinite(value)] for row in curve.surprisals]
    means = [float(np.mean(row)) if row else nan for row in rows]
    return WordAges(
        curve.word,
        acquired_at([words for words, _ in points], [value for _, value in points], PIPELINES_CHANCE),
        acquired_at([c.words_read for c in checkpoints], means, log(checkpoints[0].vocabulary)),
        children.get(curve.word),
    )
