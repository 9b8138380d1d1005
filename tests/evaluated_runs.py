"""Run folders with evaluations, made by the suites' own arithmetic from answers that a test chooses."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fabula_proto import EvaluationReport, SuiteResult, TeacherIdentity
from services.evaluator.engine import ItemsDone, Scorer
from services.evaluator.items import Candidate, Item, ItemSet, choice, minimal_pair
from services.evaluator.statistics import mean_interval
from services.evaluator.suites import blimp, entity_tracking, wug_adj
from services.evaluator.suites.outcome import SuiteOutcome, as_measure

IDENTITY = TeacherIdentity(
    backend="test", model="vowels", revision="1", rubric="paper", rubric_version="1", rubric_hash="0" * 12, mode="rules"
)
Answers = Mapping[str, Sequence[int]]
"""Paradigm -> index chosen for each item; 0 is right."""


@dataclass(frozen=True)
class Suite:
    """A suite's result and the files beside it."""

    result: SuiteResult
    files: Mapping[str, str] = field(default_factory=dict)


class Told:
    """A scorer that prefers what it was told to."""

    def __init__(self, choices: Sequence[int]) -> None:
        self._choices = choices

    def score(self, items: Sequence[Item], done: ItemsDone) -> list[tuple[float, ...]]:
        """The highest score for the candidate chosen."""
        return [
            tuple(float(i == choice) for i in range(len(item.candidates)))
            for item, choice in zip(items, self._choices, strict=True)
        ]


Evaluate = Callable[[ItemSet, Scorer, int, ItemsDone], SuiteOutcome]


def of_outcome(name: str, outcome: SuiteOutcome, path: str | None, reason: str | None = None) -> Suite:
    """What a report says of a suite that was measured."""
    result = SuiteResult(
        suite=name,
        status="ok",
        source=outcome.source,
        headline=outcome.headline,
        unit=outcome.unit,
        measures=outcome.measures,
        reason=reason,
        results_path=path,
    )
    return Suite(result, outcome.files)


def _ranked(evaluate: Evaluate, items: Sequence[Item], answers: Answers) -> SuiteOutcome:
    told = Told([choice for row in answers.values() for choice in row])
    return evaluate(ItemSet(tuple(items), "here"), told, 0, lambda _done, _total: None)


def pairs(answers: Answers, suite: str = "blimp", path: str | None = None, reason: str | None = None) -> Suite:
    """A suite of minimal pairs, by default BLiMP."""
    groups = (("field", "f"), ("term", "t"))
    items = [
        minimal_pair(uid, f"good {uid} {i}.", f"bad {uid} {i}.", groups)
        for uid, row in answers.items()
        for i in range(len(row))
    ]
    return of_outcome(suite, _ranked(blimp.evaluate, items, answers), path, reason)


def boxes(answers: Answers, path: str | None = None) -> Suite:
    """Entity tracking; paradigms are `<split>_<n>_ops`, and each question has five options."""
    items = []
    for uid, row in answers.items():
        split, ops, _ = uid.rsplit("_", 2)
        options = [f" the thing {i}." for i in range(5)]
        items += [choice(uid, "The box holds", options, (("split", split), ("ops", ops)))] * len(row)
    return of_outcome("entity_tracking", _ranked(entity_tracking.evaluate, items, answers), path)


def wugs(ratings: Sequence[float], scores: Sequence[float], path: str | None = None) -> Suite:
    """Wug adjectives: people's shares for the first form, and its log-probability above the other's."""

    class Preferring:
        def score(self, items: Sequence[Item], done: ItemsDone) -> list[tuple[float, ...]]:
            return [(score, 0.0) for score in scores]

    items = tuple(Item("wug_adj", (Candidate("", "a"), Candidate("", "b")), rating=rating) for rating in ratings)
    outcome = wug_adj.evaluate(ItemSet(items, "here"), Preferring(), 0, lambda _done, _total: None)
    return of_outcome("wug_adj", outcome, path)


def stories(totals: Sequence[float | None], prompt: str = "Once") -> Suite:
    """Judged stories; none is one without a verdict."""
    measures = {"total": as_measure(mean_interval([t for t in totals if t is not None], 0))}
    rows = [{"text": "A fox.", "words": 2, "ended": True, "verdict": {"status": "ok", "total": t}} for t in totals]
    files = {"stories.json": json.dumps({"prompt": prompt, "seed": 1, "stories": rows})}
    told = of_outcome("storytelling", SuiteOutcome("stories", "total", "points", measures, files), None)
    return Suite(told.result.model_copy(update={"teacher": IDENTITY}), told.files)


def write_evaluation(
    run: Path, checkpoint: str, words: tuple[int, int], suites: Sequence[Suite], name: str = ""
) -> Path:
    """`words` are those of pretraining and of interaction; `name` is the folder's, the checkpoint's by default."""
    folder = run / "evaluations" / (name or checkpoint)
    report = EvaluationReport(
        run=run.name,
        checkpoint=checkpoint,
        path=f"/somewhere/{checkpoint}",
        stage="interact" if words[1] else "pretrain",
        pretraining_words=words[0],
        interaction_words=words[1],
        suites=tuple(suite.result for suite in suites),
        seconds=1.0,
        worker="w",
    )
    for suite in suites:
        for path, text in suite.files.items():
            (folder / suite.result.suite / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / suite.result.suite / path).write_text(text, encoding="utf-8")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(report.to_json() + "\n", encoding="utf-8")
    return folder


def new_run(folder: Path, checkpoints: Sequence[str] = ()) -> Path:
    """A run with manifests of pretraining checkpoints."""
    folder.mkdir(parents=True)
    (folder / "run.yaml").write_text("preset: smoke\n")
    for number, name in enumerate(checkpoints, start=1):
        (folder / "checkpoints" / name).mkdir(parents=True)
        facts = {"stage": "pretrain", "step": number, "pretraining_words": number * 10**6, "interaction_words": 0}
        (folder / "checkpoints" / name / "manifest.json").write_text(json.dumps(facts))
    return folder
