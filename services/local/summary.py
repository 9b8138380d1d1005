"""What a run gained, read from its folder: reports, metrics, stories, time. No torch."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from fabula_proto import EvaluationReport, Measure, PretrainMetrics, StepMetrics, SuiteResult
from services.local.errors import CommandError
from services.local.sessions import Sessions
from services.student_trainer import config

STORIES_SHOWN = 3
CRITERION = "criterion/"


@dataclass(frozen=True)
class Difference:
    """after - before with its 95 % interval, from the intervals of the two.

    Interval by MOVER (Zou & Donner 2008): the limits' distances add up as squares. Takes before and after as
    independent, which is cautious where both answered the same items.
    """

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, before: Measure, after: Measure) -> "Difference":
        """The difference of two measured means."""
        value = after.value - before.value
        down = ((after.value - after.low) ** 2 + (before.high - before.value) ** 2) ** 0.5
        up = ((after.high - after.value) ** 2 + (before.value - before.low) ** 2) ** 0.5
        return cls(value, value - down, value + up)

    @property
    def beyond_chance(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Phase:
    """Seconds by what they were spent on; `part` belongs to the phase above it."""

    name: str
    seconds: float
    part: bool = False


@dataclass(frozen=True)
class ShownStory:
    """A story that the student wrote for the teacher."""

    step: int
    index: int
    text: str
    total: float | None
    flags: tuple[str, ...]


@dataclass(frozen=True)
class Summary:
    """All that the closing table shows. `after` and `last` are none where interaction has not got that far."""

    folder: Path
    before: EvaluationReport | None
    after: EvaluationReport | None
    first: StepMetrics | None
    last: StepMetrics | None
    pretraining_words: int | None
    updates: int
    phases: tuple[Phase, ...]
    prompt: str
    first_stories: tuple[ShownStory, ...]
    last_stories: tuple[ShownStory, ...]

    @property
    def run(self) -> str:
        """The run's name."""
        return self.folder.name


class Ends(BaseModel):
    """Names of the checkpoints before and after interaction, none where there is none yet."""

    before: str | None
    after: str | None

    @property
    def names(self) -> tuple[str, ...]:
        """The ones that exist."""
        return tuple(name for name in (self.before, self.after) if name is not None)


def ends(folder: Path) -> Ends:
    """Where interaction starts (the last checkpoint of pretraining, or the one set) and where it has got to."""
    found: dict[str, tuple[int, float, str]] = {}
    for manifest in sorted((folder / "checkpoints").glob("chck_*/manifest.json")):
        facts = json.loads(manifest.read_text(encoding="utf-8"))
        words = facts["pretraining_words" if facts["stage"] == "pretrain" else "interaction_words"]
        # Of two with the same words, the final one was written last.
        candidate = (words, manifest.stat().st_mtime, manifest.parent.name)
        found[facts["stage"]] = max(found.get(facts["stage"], candidate), candidate)
    start = config.load(folder / "run.yaml").interact.start
    before = Path(start).name if start else found["pretrain"][2] if "pretrain" in found else None
    return Ends(before=before, after=found["interact"][2] if "interact" in found else None)


def report_path(folder: Path, checkpoint: str) -> Path:
    """Where the evaluator writes the report of a checkpoint."""
    return folder / "evaluations" / checkpoint / "report.json"


def summarise(folder: Path) -> Summary:
    """Read a run's folder.

    Raises:
        CommandError: a file of the run cannot be read.
    """
    if not (folder / "run.yaml").is_file():
        raise CommandError(f"{folder} holds no run: there is no run.yaml in it; give a folder such as runs/<run>")
    end = ends(folder)
    pretraining, steps = _metrics(folder / "metrics.jsonl")
    before, after = (_report(folder, name) for name in (end.before, end.after))
    prompt, first = _stories(folder, steps[0].step) if steps else ("", ())
    last = _stories(folder, steps[-1].step)[1] if steps else ()
    return Summary(
        folder=folder,
        before=before,
        after=after,
        first=steps[0] if steps else None,
        last=steps[-1] if steps else None,
        pretraining_words=max((line.words_seen for line in pretraining), default=None),
        updates=len(steps),
        phases=_phases(Sessions.read(folder), pretraining, steps, _reports(folder)),
        prompt=prompt,
        first_stories=first,
        last_stories=last,
    )


def suite(report: EvaluationReport | None, name: str) -> SuiteResult | None:
    """The report's result for a suite, none where it has none."""
    return next((s for s in report.suites if s.suite == name), None) if report is not None else None


def measure(result: SuiteResult | None, key: str | None = None) -> Measure | None:
    """One measure of a suite, its headline by default; none where the suite carries no numbers."""
    if result is None or result.status != "ok":
        return None
    return result.measures.get(key or result.headline or "")


def criterion_keys(result: SuiteResult | None) -> dict[str, str]:
    """Key of each of the rubric's criteria among the measures of a storytelling result -> its name."""
    keys = result.measures if result is not None else {}
    return {key: key.removeprefix(CRITERION) for key in keys if key.startswith(CRITERION)}


def _metrics(path: Path) -> tuple[list[PretrainMetrics], list[StepMetrics]]:
    pretraining: list[PretrainMetrics] = []
    steps: dict[int, StepMetrics] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return [], []
    for number, line in enumerate(lines, start=1):
        try:
            phase = json.loads(line).get("phase")
            if phase == "pretrain":
                pretraining.append(PretrainMetrics.from_json(line))
            elif phase != "alarm":
                step = StepMetrics.from_json(line)
                steps[step.step] = step
        except ValueError as error:
            if number == len(lines):
                break  # a kill cut the last line short
            raise CommandError(f"{path}, line {number}, is not a line of metrics: {error}", exit_code=1) from error
    return pretraining, [steps[key] for key in sorted(steps)]


def _report(folder: Path, checkpoint: str | None) -> EvaluationReport | None:
    if checkpoint is None:
        return None
    path = report_path(folder, checkpoint)
    try:
        return EvaluationReport.from_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise CommandError(
            f"{path} is not an evaluation report: {error}; delete it and run `fabula up` again", exit_code=1
        ) from error


def _reports(folder: Path) -> list[EvaluationReport]:
    names = sorted(path.parent.name for path in (folder / "evaluations").glob("*/report.json"))
    return [report for name in names if (report := _report(folder, name)) is not None]


def _phases(
    sessions: Sessions,
    pretraining: Sequence[PretrainMetrics],
    steps: Sequence[StepMetrics],
    reports: Sequence[EvaluationReport],
) -> tuple[Phase, ...]:
    seconds = sum(step.seconds for step in steps)
    parts = {
        "writing": sum(step.write_s for step in steps),
        "waiting for the teacher": sum(step.wait_for_teacher_s for step in steps),
        "learning": sum(step.learn_s for step in steps),
    }
    parts["recording, saving"] = max(0.0, seconds - sum(parts.values()))
    return (
        *([Phase("start-up", sessions.startup_s)] if sessions.sessions else []),  # `fabula up` alone notes it
        Phase("pretraining", sum(line.seconds for line in pretraining)),
        Phase("interaction", seconds),
        *(Phase(name, value, part=True) for name, value in parts.items()),
        Phase("evaluation, beside it", sum(report.seconds for report in reports)),
        Phase("waiting for it at the end", sessions.evaluation_wait_s, part=True),
    )


def _stories(folder: Path, step: int) -> tuple[str, tuple[ShownStory, ...]]:
    """Prompt and the first stories of an update: those with indices 0, 1, 2, whatever their score."""
    # pyarrow takes a while to import and only this needs it.
    from pyarrow import parquet

    path = folder / "stories" / f"part-{step:05d}.parquet"
    if not path.exists():
        return "", ()
    columns = ["step", "index", "prompt", "text", "total", "flags"]
    rows: list[Mapping[str, Any]] = parquet.read_table(path, columns=columns).to_pylist()
    rows = sorted(rows, key=lambda row: int(row["index"]))[:STORIES_SHOWN]
    stories = tuple(
        ShownStory(row["step"], row["index"], row["text"], row["total"], tuple(row["flags"] or ())) for row in rows
    )
    return (rows[0]["prompt"] if rows else ""), stories
