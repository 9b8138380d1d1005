"""The BabyLM 2025 leaderboard's submission file: predictions of the final model, fast scores at each milestone.

The same content as the pipeline's collate_preds.py writes. That checks the sizes of the paradigms that it finds; we
also name those that are missing. Fast scores come from our reports and choices, not from the data again.
"""

import json
from collections.abc import Iterator, Mapping
from importlib import resources
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict

from services.evaluator.comparison import CHOICES_FILE
from services.local.comparing import CHOICES
from services.local.errors import CommandError
from services.local.pipeline_results import MAIN, PipelineResults

PREDICTIONS = "predictions.json"


class Part(BaseModel):
    """A suite's predictions: their folder, and how many each paradigm has (its name in lower case)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    items: dict[str, int]

    def problems(self, predictions: Any) -> Iterator[str]:
        """What is wrong with the content of a predictions.json, each ending with what is expected."""
        try:
            counts = {uid.lower(): len(of_uid["predictions"]) for uid, of_uid in predictions.items()}
        except (AttributeError, KeyError, TypeError):
            yield "is no predictions.json of the pipeline"
            return
        for uid, expected in self.items.items():
            if counts.get(uid) != expected:
                yield f"{uid}: {counts.get(uid, 'no')} predictions, not {expected:,}"
        if unknown := sorted(counts.keys() - self.items.keys()):
            yield f"unknown paradigms {', '.join(unknown)}"


class Expected(BaseModel):
    """All that a submission holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    full: dict[str, Part]
    fast: dict[str, Part]
    glue: dict[str, int]
    aoa: int


def expected() -> Expected:
    """The leaderboard's sizes."""
    text = resources.files("services.local").joinpath("babylm_2025.yaml").read_text(encoding="utf-8")
    return Expected.model_validate(yaml.safe_load(text))


def file_name(backend: str) -> str:
    """What the pipeline calls the file."""
    return f"all_full_preds_and_fast_scores_{backend}.json"


def submission(results: PipelineResults) -> tuple[dict[str, Any], list[str]]:
    """The submission, and every part that is missing or of a wrong size, by name.

    A part that is missing is left out; of fast scores, None keeps its place among the revisions.

    Raises:
        CommandError: a file cannot be read.
    """
    sizes, problems = expected(), []
    content: dict[str, Any] = {}
    for name, part in sizes.full.items():
        path = f"zero_shot/{results.backend}/{part.path}/{PREDICTIONS}"
        if (predictions := results.read(results.final, path)) is not None:
            content[name] = predictions
        problems += _named(f"{MAIN} ({results.final}) {name}", part, predictions, path)
    if results.merged_surprisals is not None:
        content["aoa"] = json.loads(results.merged_surprisals)
    for revision in results.revisions:
        count = len(results.surprisals[revision]["results"]) if revision in results.surprisals else 0
        if count != sizes.aoa:
            problems.append(f"{revision} aoa: {count or 'no'} surprisals, not {sizes.aoa:,}")
    content["glue"] = {}
    for task, size in sizes.glue.items():
        path = f"finetune/{task}/{PREDICTIONS}"
        if (predictions := results.read(results.final, path)) is not None:
            content["glue"] |= predictions
        problems += _named(f"{MAIN} ({results.final}) {task}", Part(path=path, items={task: size}), predictions, path)
    content["fast_eval_results"] = {name: [] for name in sizes.fast}
    for revision in results.revisions:
        for name, part in sizes.fast.items():
            folder = f"zero_shot/{results.backend}/{part.path}"
            predictions = results.read(revision, f"{folder}/{PREDICTIONS}")
            problems += _named(f"{revision} {name}", part, predictions, f"{folder}/{PREDICTIONS}")
            content["fast_eval_results"][name].append(
                None if predictions is None else _scores(results, revision, folder, predictions)
            )
    return content, problems


def _named(name: str, part: Part, predictions: Any, path: str) -> list[str]:
    if predictions is None:
        return [f"{name}: not measured (no {path})"]
    return [f"{name}: {problem}" for problem in part.problems(predictions)]


def _scores(results: PipelineResults, revision: str, folder: str, predictions: Mapping[str, Any]) -> dict[str, float]:
    """Paradigm -> score, 0..1 or a correlation; of reading, the two shares of variance."""
    measured = results.suites[revision][folder]
    measures = measured.result.measures
    if measured.result.suite == "reading":
        return {"spr": measures["self_paced"].value / 100, "rt": measures["eye_tracking"].value / 100}
    choices = measured.evaluation.read(measured.result.suite, CHOICES_FILE, CHOICES)
    if choices is not None:
        return {uid: row.count(0) / len(row) for uid, row in choices.items()}
    return dict.fromkeys(predictions, measures[measured.result.headline or ""].value)


def checked(results: PipelineResults, *, partial: bool) -> tuple[str, str, list[str]]:
    """Name and text of the submission file, and what is missing in it.

    Raises:
        CommandError: something is missing and `partial` is not set; it is named.
    """
    content, problems = submission(results)
    if problems and not partial:
        raise CommandError(
            "the submission is not complete, so nothing was written (--partial writes what is there):\n  "
            + "\n  ".join(problems),
            exit_code=1,
        )
    return file_name(results.backend), json.dumps(content), problems
