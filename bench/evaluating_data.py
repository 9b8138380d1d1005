"""Evaluation data for comparisons: a suite's first rows, in a folder that both evaluators read."""

import json
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from services.evaluator.adapters.eval_data.layout import PLACES, find

READING_ROWS = 200  # fewer leave nothing to regress on


def reduced(source: Path, target: Path, limit: int | None) -> Path:
    """A copy of a suite's data with the first `limit` rows of each file, archives unpacked; where it begins."""
    if source.suffix == ".csv":
        rows = source.read_text(encoding="utf-8").splitlines(keepends=True)
        path = target / "reading" / source.name
        path.parent.mkdir(parents=True)
        path.write_text("".join(rows[: None if limit is None else 1 + max(limit, READING_ROWS)]), encoding="utf-8")
        return path
    folder = target / source.stem
    folder.mkdir(parents=True)
    for name, text in _texts(source):
        lines = text.splitlines(keepends=True)
        (folder / name).write_text("".join(lines[:limit]), encoding="utf-8")
    return folder


def _texts(source: Path) -> Iterator[tuple[str, str]]:
    if source.is_dir():
        for file in sorted(source.glob("*.jsonl")):
            yield file.name, file.read_text(encoding="utf-8")
        return
    password = next(place.password for place in PLACES.values() if source.stem in place.names)
    with zipfile.ZipFile(source) as archive:
        for name in archive.namelist():
            if name.endswith(".jsonl"):
                yield Path(name).name, archive.read(name, pwd=password).decode("utf-8")


def all_strings(data: Path, suites: Sequence[str]) -> Iterator[str]:
    """Every string in the data of those suites that are there: what a tokenizer is trained on."""
    for suite in suites:
        source = find(data, suite)
        if source is None or source.suffix not in ("", ".zip"):
            continue
        for _, rows in _texts(source):
            for row in rows.splitlines():
                for value in json.loads(row).values():
                    yield from (
                        text for text in (value if isinstance(value, list) else [value]) if isinstance(text, str)
                    )
