"""What a run leaves behind for reading: a line of metrics an update, a row a story."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel

from fabula_proto import ScoredBatch, Story, Verdict
from services.student_trainer.files import write_atomically

PROBABILITIES = "probabilities_"  # and a criterion: the column with the probabilities of its levels


@dataclass(frozen=True)
class StoryRow:
    """One story with all that is known of it."""

    story: Story
    index: int
    words: int
    tokens: int
    ended: bool
    kl: float
    reward: float | None
    verdict: Verdict
    batch: ScoredBatch


def append_metrics(path: Path, line: BaseModel) -> None:
    """Add one line to metrics.jsonl."""
    with path.open("a", encoding="utf-8") as file:
        file.write(line.model_dump_json() + "\n")


def rewind_metrics(path: Path, keep_before_step: int) -> None:
    """Drop interaction lines of `keep_before_step` and later, and a line that was cut off by a kill."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        if not line.endswith("\n"):
            continue
        fields = _Line.model_validate_json(line)
        if fields.phase == "pretrain" or fields.step < keep_before_step:
            kept.append(line)
    write_atomically(path, "".join(kept))


class _Line(BaseModel):
    phase: str
    step: int


def story_part(folder: Path, step: int) -> Path:
    """The Parquet file of one update's stories."""
    return folder / f"part-{step:05d}.parquet"


def rewind_stories(folder: Path, keep_before_step: int) -> None:
    """Delete the parts of `keep_before_step` and later: these updates will be done again."""
    for part in folder.glob("part-*.parquet"):
        if int(part.stem.removeprefix("part-")) >= keep_before_step:
            part.unlink()


def write_stories_part(
    folder: Path, run: str, step: int, policy_version: int, criteria: Sequence[str], rows: Sequence[StoryRow]
) -> Path:
    """Write one update's stories as one Parquet file, all or nothing.

    Of each criterion the mean level, `score_<criterion>`, and the probabilities of its levels,
    `probabilities_<criterion>`. These, `total`, `teacher_reward`, `coverage` and `reward` are null where the verdict is
    not ok. Numbers are as exact as the trainer had them: a replay learns from them.
    """
    columns: dict[str, tuple[pa.DataType, list[object]]] = {
        "run": (pa.string(), [run] * len(rows)),
        "step": (pa.int32(), [step] * len(rows)),
        "index": (pa.int32(), [r.index for r in rows]),
        "story_id": (pa.string(), [r.story.id for r in rows]),
        "policy_version": (pa.int32(), [policy_version] * len(rows)),
        "prompt": (pa.string(), [r.story.prompt for r in rows]),
        "text": (pa.string(), [r.story.text for r in rows]),
        "words": (pa.int32(), [r.words for r in rows]),
        "tokens": (pa.int32(), [r.tokens for r in rows]),
        "ended": (pa.bool_(), [r.ended for r in rows]),
        "status": (pa.string(), [r.verdict.status.value for r in rows]),
        "total": (pa.float64(), [r.verdict.total for r in rows]),
        "teacher_reward": (pa.float64(), [r.verdict.reward for r in rows]),
        "coverage": (pa.float64(), [r.verdict.coverage for r in rows]),
        "reward": (pa.float32(), [r.reward for r in rows]),
        "kl": (pa.float32(), [r.kl for r in rows]),
        "flags": (pa.list_(pa.string()), [list(r.verdict.flags) for r in rows]),
        "reason": (pa.string(), [r.verdict.reason for r in rows]),
    }
    for name in criteria:
        scores = [None if r.verdict.criteria is None else r.verdict.criteria[name] for r in rows]
        columns[f"score_{name}"] = (pa.float64(), [None if s is None else s.mean for s in scores])
        levels = [None if s is None else s.probabilities for s in scores]
        columns[f"{PROBABILITIES}{name}"] = (pa.list_(pa.float64()), list(levels))
    for name in ("backend", "model", "revision", "rubric", "rubric_version", "rubric_hash", "mode"):
        columns[f"teacher_{name}"] = (pa.string(), [getattr(r.batch.teacher, name) for r in rows])
    columns["worker"] = (pa.string(), [r.batch.worker for r in rows])
    table = pa.table({name: pa.array(values, type=kind) for name, (kind, values) in columns.items()})
    path = story_part(folder, step)
    folder.mkdir(parents=True, exist_ok=True)
    building = folder / f".building-{path.name}"
    pq.write_table(table, building, compression="zstd")
    building.replace(path)
    return path
