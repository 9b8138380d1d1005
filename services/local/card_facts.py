"""What a run's folder says of its models: everything that a model card states. No torch."""

import json
import math
import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from pydantic import ValidationError

from fabula_proto import Alarm, EvaluationReport, TeacherIdentity
from services.local import ledgers, summary
from services.local.errors import CommandError
from services.local.ledgers import RunLedger
from services.local.recorded_stories import IDENTITY
from services.local.run_files import checked_folder
from services.student_trainer import config
from services.student_trainer.settings import RunSettings


@dataclass(frozen=True)
class Kept:
    """A checkpoint that can be published.

    Attributes:
        facts: of its manifest.
        shape: its config.json.
        parameters: numbers in its weights.
    """

    name: str
    folder: Path
    facts: Mapping[str, Any]
    shape: Mapping[str, Any]
    parameters: int
    report: EvaluationReport | None

    @property
    def learned(self) -> bool:
        """Whether it has learned from the teacher."""
        return bool(self.facts["stage"] == "interact")

    def size(self, *names: str) -> int | None:
        """The first of these fields that its configuration has: each kind of model has names of its own."""
        text = {**self.shape, **(self.shape.get("text_config") or {})}
        return next((text[name] for name in names if text.get(name) is not None), None)


@dataclass(frozen=True)
class RunFacts:
    """A run as its card shows it. `kept` is in the order in which the checkpoints were reached; the last is the final.

    Attributes:
        recorded: run.yaml as it is. `settings` are checked, and hold defaults of today for what was no setting then.
        start: the checkpoint that interaction started from, as `kept` knows it; none where it is another run's.
        teachers: who judged how many of the stories that the run learned from.
        verdicts: stories with an ok verdict, and without.
        teacher_option: the teacher as the run was given it.
        eval_data: the evaluation data as the run was given it; none means generated items.
    """

    folder: Path
    settings: RunSettings
    recorded: Mapping[str, Any]
    kept: tuple[Kept, ...]
    start: Kept | None
    ledger: RunLedger
    teachers: tuple[tuple[TeacherIdentity, int], ...]
    verdicts: tuple[int, int]
    alarms: tuple[Alarm, ...]
    teacher_option: str | None
    eval_data: str | None

    @property
    def run(self) -> str:
        """The run's name."""
        return self.folder.name

    @property
    def read_corpus(self) -> bool:
        """Whether the student learned from the corpus at all."""
        return self.settings.pretrain.word_budget > 0 or self.settings.interact.mixed.batches_per_update > 0


def read_facts(run_dir: Path) -> RunFacts:
    """Read the folder of a run.

    Raises:
        CommandError: there is no run in it, it has kept no checkpoint, or a file cannot be read.
    """
    folder = checked_folder(run_dir)
    try:
        settings = config.load(folder / "run.yaml")
        recorded = yaml.safe_load((folder / "run.yaml").read_text(encoding="utf-8"))
        up = json.loads((folder / "up.json").read_text(encoding="utf-8")) if (folder / "up.json").exists() else {}
        kept = [_kept(folder, path.parent) for path in (folder / "checkpoints").glob("chck_*/manifest.json")]
        verdicts, alarms = _metrics(folder / "metrics.jsonl")
        teachers = _teachers(folder / "stories")
    except (config.ConfigError, OSError, ValueError, KeyError, ValidationError, pa.ArrowException) as error:
        raise CommandError(f"run {folder.name} cannot be read: {error}", exit_code=1) from error
    if not kept:
        raise CommandError(f"run {folder.name} has kept no checkpoint yet; nothing of it can be published")
    kept.sort(key=lambda one: (one.learned, one.facts["pretraining_words"], one.facts["interaction_words"], one.name))
    before = summary.ends(folder).before
    return RunFacts(
        folder=folder,
        settings=settings,
        recorded=recorded,
        kept=tuple(kept),
        start=next((one for one in kept if one.name == before), None),
        ledger=ledgers.read_ledger(folder),
        teachers=teachers,
        verdicts=verdicts,
        alarms=alarms,
        teacher_option=up.get("teacher"),
        eval_data=up.get("eval_data"),
    )


def _kept(folder: Path, checkpoint: Path) -> Kept:
    report = summary.report_path(folder, checkpoint.name)
    return Kept(
        name=checkpoint.name,
        folder=checkpoint,
        facts=json.loads((checkpoint / "manifest.json").read_text(encoding="utf-8")),
        shape=json.loads((checkpoint / "config.json").read_text(encoding="utf-8")),
        parameters=sum(_numbers(path) for path in checkpoint.glob("*.safetensors")),
        report=EvaluationReport.from_json(report.read_bytes()) if report.exists() else None,
    )


def _numbers(weights: Path) -> int:
    """How many numbers a safetensors file holds, by its header: its length in 8 bytes, then JSON."""
    with weights.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    return sum(math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")


def _metrics(path: Path) -> tuple[tuple[int, int], tuple[Alarm, ...]]:
    ok = failed = 0
    alarms = []
    for line in path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else ():
        fields = json.loads(line)
        if fields["phase"] == "interact":
            ok, failed = ok + fields["verdicts_ok"], failed + fields["verdicts_failed"]
        elif fields["phase"] == "alarm":
            alarms.append(Alarm.model_validate(fields))
    return (ok, failed), tuple(alarms)


def _teachers(stories: Path) -> tuple[tuple[TeacherIdentity, int], ...]:
    counts: Counter[TeacherIdentity] = Counter()
    for part in sorted(stories.glob("part-*.parquet")):
        table = pq.read_table(part, columns=[f"teacher_{name}" for name in IDENTITY])
        for row in table.group_by(table.column_names).aggregate([([], "count_all")]).to_pylist():
            count = row.pop("count_all")
            counts[TeacherIdentity(**{key.removeprefix("teacher_"): value for key, value in row.items()})] += count
    return tuple(counts.most_common())
