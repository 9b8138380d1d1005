"""Reads run folders, also those that are being written right now. Never writes."""

import json
import re
import sys
from pathlib import Path

from pydantic import ValidationError

from fabula_proto import Alarm, EvaluationReport, PretrainMetrics, StepMetrics
from services.evaluator.adapters.run_config import read_run_config, read_run_yaml
from services.evaluator.errors import EvaluatorError, RunNotFoundError
from services.evaluator.request import words_in_name
from services.evaluator.views import CheckpointInfo, RunDetail, RunMetrics, RunSummary

_RUN_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,199}$")
_WATCHED = ("run.yaml", "metrics.jsonl", "PAUSED", "stories", "checkpoints", "evaluations")


class Metrics:
    """The lines of one metrics.jsonl."""

    def __init__(self) -> None:
        self.pretrain: list[PretrainMetrics] = []
        self.interact: list[StepMetrics] = []
        self.alarms: list[Alarm] = []
        self.unreadable = 0

    def add(self, line: str) -> None:
        """Take one complete line."""
        try:
            phase = json.loads(line).get("phase")
            if phase == "pretrain":
                self.pretrain.append(PretrainMetrics.from_json(line))
            elif phase == "alarm":
                self.alarms.append(Alarm.from_json(line))
            else:
                self.interact.append(StepMetrics.from_json(line))
        except (json.JSONDecodeError, AttributeError, ValidationError):
            self.unreadable += 1


class RunFolders:
    """The runs under one folder."""

    def __init__(self, runs_dir: Path) -> None:
        self._root = runs_dir

    def folder(self, run: str) -> Path:
        """Where `run` lies.

        Raises:
            RunNotFoundError: there is no such run here, whatever tricks its name tries.
        """
        path = self._root / run
        inside = bool(_RUN_NAME.match(run)) and path.resolve().parent == self._root.resolve()
        if not inside or not _is_run(path):
            known = [p.name for p in self._folders()][:5]
            raise RunNotFoundError(f"no run {run!r} in {self._root}; there are {', '.join(known) or 'none yet'}")
        return path

    def summaries(self) -> tuple[RunSummary, ...]:
        """All runs, the one changed last first."""
        found = [self._summary(path) for path in self._folders()]
        return tuple(sorted(found, key=lambda s: -s.updated_at))

    def detail(self, run: str) -> RunDetail:
        """One run without curves and stories."""
        folder = self.folder(run)
        unreadable: list[str] = []
        try:
            config = read_run_yaml(folder)
        except EvaluatorError as error:
            config = {}
            unreadable.append(str(error))
        checkpoints = _checkpoints(folder)
        reports = _reports(folder, unreadable)
        order = {c.checkpoint: i for i, c in enumerate(checkpoints)}
        reports.sort(key=lambda r: (order.get(r.checkpoint, len(order)), r.pretraining_words, r.interaction_words))
        metrics = self._metrics(folder)
        return RunDetail(
            run=run,
            updated_at=_updated_at(folder),
            config=json.loads(json.dumps(config, default=str)),
            checkpoints=tuple(checkpoints),
            latest_pretrain=metrics.pretrain[-1] if metrics.pretrain else None,
            latest_step=metrics.interact[-1] if metrics.interact else None,
            reports=tuple(reports),
            unreadable=tuple(unreadable),
        )

    def metrics(self, run: str, points: int = sys.maxsize) -> RunMetrics:
        """The curves, each thinned to at most `points` evenly spaced lines, the first and the last among them."""
        metrics = self._metrics(self.folder(run))
        return RunMetrics(
            run=run,
            pretrain=tuple(metrics.pretrain[i] for i in evenly(len(metrics.pretrain), points)),
            interact=tuple(metrics.interact[i] for i in evenly(len(metrics.interact), points)),
            pretrain_lines=len(metrics.pretrain),
            interact_lines=len(metrics.interact),
            alarms=tuple(metrics.alarms),
            paused=(self.folder(run) / "PAUSED").exists(),
            unreadable_lines=metrics.unreadable,
        )

    def _folders(self) -> list[Path]:
        if not self._root.is_dir():
            return []
        return sorted(p for p in self._root.iterdir() if _RUN_NAME.match(p.name) and _is_run(p))

    def _summary(self, folder: Path) -> RunSummary:
        try:
            preset = read_run_config(folder).preset
        except EvaluatorError:
            preset = None  # the run's own page says what is wrong with the file
        return RunSummary(
            run=folder.name,
            preset=preset,
            updated_at=_updated_at(folder),
            checkpoints=sum(c.complete for c in _checkpoints(folder)),
            evaluations=len(list(folder.glob("evaluations/*/report.json"))),
        )

    def _metrics(self, folder: Path) -> Metrics:
        metrics = Metrics()
        try:
            text = (folder / "metrics.jsonl").read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return metrics
        for line in text.splitlines(keepends=True):
            if line.endswith("\n") and line.strip():  # the last line may be on its way
                metrics.add(line)
        return metrics


def evenly(count: int, most: int) -> list[int]:
    """Indices 0..count-1, or `most` >= 2 of them, evenly spaced with both ends."""
    if count <= most:
        return list(range(count))
    return sorted({round(i * (count - 1) / (most - 1)) for i in range(most)})


def _is_run(folder: Path) -> bool:
    return (folder / "run.yaml").is_file() or (folder / "metrics.jsonl").is_file()


def _updated_at(folder: Path) -> float:
    times = [folder.stat().st_mtime]
    # A report appears in a folder that is already there, which the parent's time does not show.
    for path in (*(folder / name for name in _WATCHED), *folder.glob("evaluations/*")):
        try:
            times.append(path.stat().st_mtime)
        except FileNotFoundError:
            continue
    return max(times)


def _checkpoints(folder: Path) -> list[CheckpointInfo]:
    if not (folder / "checkpoints").is_dir():
        return []
    names = [p.name for p in (folder / "checkpoints").iterdir() if p.is_dir() and not p.name.startswith(".")]
    found = []
    for name in names:
        seen, spent = words_in_name(name)
        complete = (folder / "checkpoints" / name / "manifest.json").is_file()
        found.append(
            CheckpointInfo(checkpoint=name, complete=complete, pretraining_words=seen, interaction_words=spent)
        )
    return sorted(found, key=lambda c: (c.pretraining_words, c.interaction_words, c.checkpoint))


def _reports(folder: Path, unreadable: list[str]) -> list[EvaluationReport]:
    reports = []
    for path in sorted(folder.glob("evaluations/*/report.json")):
        try:
            reports.append(EvaluationReport.from_json(path.read_bytes()))
        except (OSError, ValidationError) as error:
            unreadable.append(f"{path.relative_to(folder)}: {str(error).splitlines()[0]}")
    return reports
