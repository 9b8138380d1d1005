"""Reads a run's story dataset, `stories/part-*.parquet`, a step at a time."""

import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from services.evaluator.errors import RunNotFoundError
from services.evaluator.views import StoryPage, StoryRow

_SCORE = "score_"
_NAMES = tuple(name for name in StoryRow.model_fields if name != "criteria")

_Stamp = tuple[int, int]


class StoryReader:
    """Remembers which steps a part holds, so that browsing a long run does not open every file each time."""

    def __init__(self) -> None:
        self._steps: dict[Path, tuple[_Stamp, frozenset[int]]] = {}
        self._lock = threading.Lock()

    def page(self, run: str, folder: Path, step: int | None, offset: int, limit: int) -> StoryPage:
        """Stories of `step`, or of the latest one, in the order they were written.

        Raises:
            RunNotFoundError: the run has stories, but none of this step.
        """
        parts, unreadable = self._parts(folder / "stories")
        steps = sorted({s for found in parts.values() for s in found})
        if step is None and steps:
            step = steps[-1]
        if step is None:
            return StoryPage(
                run=run, steps=(), step=None, total=0, offset=offset, stories=(), unreadable_parts=unreadable
            )
        if step not in steps:
            span = f"{steps[0]} to {steps[-1]}" if steps else "none yet"
            raise RunNotFoundError(f"run {run} has no stories of step {step}; its steps: {span}")
        rows = [row for path, found in parts.items() if step in found for row in _rows(path, step)]
        rows.sort(key=lambda row: row.index)
        return StoryPage(
            run=run,
            steps=tuple(steps),
            step=step,
            total=len(rows),
            offset=offset,
            stories=tuple(rows[offset : offset + limit]),
            unreadable_parts=unreadable,
        )

    def _parts(self, folder: Path) -> tuple[dict[Path, frozenset[int]], int]:
        """Each readable part with its steps, and how many parts cannot be read."""
        found: dict[Path, frozenset[int]] = {}
        unreadable = 0
        with self._lock:
            for path in sorted(folder.glob("part-*.parquet")):
                try:
                    stat = path.stat()
                    stamp = (stat.st_mtime_ns, stat.st_size)
                    if self._steps.get(path, (None,))[0] != stamp:
                        column = pq.read_table(path, columns=["step"]).column("step")
                        self._steps[path] = (stamp, frozenset(column.to_pylist()))
                    found[path] = self._steps[path][1]
                except (OSError, pa.ArrowException):
                    unreadable += 1  # half-written, or gone since the listing: the trainer replaces parts on resume
        return found, unreadable


def _rows(path: Path, step: int) -> list[StoryRow]:
    table = pq.read_table(path, filters=[("step", "=", step)])
    return [_row(record) for record in table.to_pylist()]


def _row(record: dict[str, Any]) -> StoryRow:
    criteria = {
        key.removeprefix(_SCORE): value for key, value in record.items() if key.startswith(_SCORE) and value is not None
    }
    known = {name: record[name] for name in _NAMES if name in record}
    known["flags"] = tuple(known.get("flags") or ())
    return StoryRow(**known, criteria=criteria)
