"""What a tracker is told, read from the run's own records: lines of metrics.jsonl, and a few stories now and then."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STORIES_EVERY = 10  # updates
STORIES_SHOWN = 3  # with indices 0, 1, 2, whatever their score
STORY_COLUMNS = ("index", "total", "reward", "words", "text")


@dataclass(frozen=True)
class Line:
    """One line of metrics.jsonl.

    Attributes:
        number: its place in the file, from 1. A run that goes on writes its lines again at the same places.
        phase: `pretrain`, `interact` or what else the line says it is of.
        step: the phase's own: an optimiser step or an update.
        text: what an alarm says; none of other lines.
        scalars: its numbers by `<phase>/<field>`, or `<phase>/<field>/<key>` where the field is a mapping.
    """

    number: int
    phase: str
    step: int
    scalars: dict[str, float]
    text: str | None = None


def parse_line(number: int, text: str) -> Line:
    """Read a line of metrics.jsonl, whatever fields it has: those that are no finite number are left out.

    Raises:
        ValueError: it is no JSON object with `phase` and `step`.
    """
    fields = json.loads(text)
    try:
        phase, step = str(fields["phase"]), int(fields["step"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"line {number} of metrics.jsonl has no phase and step: {text[:80]}") from error
    said = f"{fields.get('guard')}: {fields.get('message')}" if phase == "alarm" else None
    return Line(number, phase, step, dict(_scalars(phase, fields)), said)


def _scalars(prefix: str, fields: dict[str, Any]) -> Iterator[tuple[str, float]]:
    for name, value in fields.items():
        if isinstance(value, dict):
            yield from _scalars(f"{prefix}/{name}", value)
        elif isinstance(value, int | float) and math.isfinite(value):
            yield f"{prefix}/{name}", float(value)


class Follower:
    """Reads a growing metrics.jsonl.

    A trainer that goes on cuts the file back and writes the lines again: those that were read once are not read
    again. The file is small (a few megabytes in the paper's run), so it is read whole whenever it has changed.
    """

    def __init__(self, path: Path, read_before: int = 0) -> None:
        self._path = path
        self._read = read_before
        self._seen: tuple[int, int, int] | None = None

    def unread(self) -> Iterator[Line]:
        """Finished lines after those that were read."""
        try:
            status = self._path.stat()
            now = (status.st_ino, status.st_size, status.st_mtime_ns)
            if now == self._seen:
                return
            text = self._path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return
        self._seen = now
        lines = text.split("\n")[:-1]  # what follows the last line break is still being written
        for number in range(self._read + 1, len(lines) + 1):
            self._read = number
            yield parse_line(number, lines[number - 1])


def sampled_stories(folder: Path, line: Line) -> list[dict[str, Any]]:
    """The stories to show with this line, by STORY_COLUMNS; none for most lines, or where they are not there yet."""
    if line.phase != "interact" or line.step % STORIES_EVERY:
        return []
    from pyarrow import parquet  # it takes a while to import

    path = folder / "stories" / f"part-{line.step:05d}.parquet"
    if not path.exists():
        return []
    rows: list[dict[str, Any]] = parquet.read_table(path, columns=list(STORY_COLUMNS)).to_pylist()
    return sorted(rows, key=lambda row: int(row["index"]))[:STORIES_SHOWN]
