"""Files of the age of acquisition: contexts of words, children's ages, and what checkpoints have been measured to."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, nan
from pathlib import Path
from typing import Any

from services.evaluator.acquisition import said_at
from services.evaluator.adapters.files import read_table
from services.evaluator.errors import BadDataError
from services.evaluator.suites.aoa import CHECKPOINT, SURPRISALS, Checkpoint, Contexts, Curve

MONTHS = tuple(range(16, 31))
_FRESH = "take a fresh copy of the file"
_AGAIN = "evaluate the checkpoint on aoa again"


@dataclass(frozen=True, slots=True)
class MeasuredCheckpoint:
    """What one checkpoint's evaluation on aoa left behind: `document` is its surprisal.json."""

    folder: Path
    checkpoint: Checkpoint
    document: Mapping[str, Any]


def load_contexts(file: Path) -> Contexts:
    """`cdi_childes.json`: word -> [{"context": ...}]. Words of one letter are left out, as the pipeline does.

    Raises:
        BadDataError: the file cannot be read, is empty or has another shape.
    """
    data = _json(file, _FRESH)
    if not isinstance(data, dict) or not data:
        raise BadDataError(str(file), None, repr(data)[:80], "an object of words", _FRESH)
    words: dict[str, tuple[str, ...]] = {}
    for word, rows in data.items():
        if not isinstance(rows, list):
            raise BadDataError(str(file), None, f"{word}: {rows!r}", "a list of contexts for each word", _FRESH)
        texts = tuple(row.get("context") if isinstance(row, dict) else None for row in rows)
        wrong = next((i for i, text in enumerate(texts) if not isinstance(text, str) or not text.strip()), None)
        if wrong is not None:
            found, expected = f"{word}[{wrong}] = {rows[wrong]!r}", 'an object with a non-empty text under "context"'
            raise BadDataError(str(file), None, found, expected, _FRESH)
        if len(word.strip()) > 1:
            words[word] = tuple(str(text) for text in texts)
    if not any(words.values()):
        raise BadDataError(str(file), None, f"{len(data)} words without a context", "contexts of words", _FRESH)
    return Contexts(words, str(file))


def load_children(file: Path) -> dict[str, float]:
    """Word to the age in months at which half of the children say it; words without one are left out.

    Accepted: a table with the ages themselves (`word_clean` or `word`, and `aoa`), or with shares of children by month
    (`word`, `16` to `30`), to which curves are fitted. Of several rows for a word the first counts, as in the pipeline.

    Raises:
        BadDataError: the file cannot be read or is no such table.
    """
    columns, rows = read_table(file, _FRESH)
    named = next((name for name in ("word_clean", "word") if name in columns), None)
    months = [str(month) for month in MONTHS if str(month) in columns]
    if named is None or not ("aoa" in columns or months):
        found = ", ".join(columns)[:80] or "nothing"
        raise BadDataError(str(file), 1, found, "columns word_clean and aoa, or word and 16 to 30", _FRESH)
    children: dict[str, float | None] = {}
    for line, row in rows:
        word = row[named]
        if not word:
            raise BadDataError(str(file), line, f"{named} = {word!r}", "a word", f"mend the row or {_FRESH}")
        if word in children:
            continue
        if "aoa" in columns:
            age = _number(file, line, row, "aoa")
            children[word] = age if isfinite(age) else None
        else:
            shares = [_number(file, line, row, month) for month in months]
            children[word] = said_at([float(month) for month in months], shares)
    ages = {word: age for word, age in children.items() if age is not None}
    if not ages:
        raise BadDataError(str(file), None, f"{len(rows)} rows without an age", "ages of children", _FRESH)
    return ages


def load_measured(folder: Path) -> MeasuredCheckpoint:
    """What an evaluation on aoa wrote into `folder`.

    Raises:
        BadDataError: a file is missing or has another shape.
    """
    about, document = _json(folder / CHECKPOINT, _AGAIN), _json(folder / SURPRISALS, _AGAIN)
    try:
        checkpoint = Checkpoint(str(about["step"]), int(about["words_read"]), int(about["vocabulary"]))
        for row in document["results"]:
            _ = str(row["target_word"]), int(row["context_id"]), float(row["surprisal"]), row["context"]
    except (KeyError, TypeError, ValueError) as error:
        raise BadDataError(str(folder), None, repr(error), f"{CHECKPOINT} and {SURPRISALS} of one", _AGAIN) from error
    return MeasuredCheckpoint(folder, checkpoint, document)


def curves(measured: Sequence[MeasuredCheckpoint]) -> list[Curve]:
    """Each word's surprisals at the checkpoints, which must have been asked for the same words and contexts.

    Raises:
        BadDataError: they have not.
    """
    tables = [_table(one) for one in measured]
    for one, table in zip(measured, tables, strict=True):
        if table.keys() != tables[0].keys():
            differing = sorted(map(str, table.keys() ^ tables[0].keys()))
            found = f"{len(differing)} contexts that differ from {measured[0].folder}, such as {differing[0]}"
            raise BadDataError(str(one.folder), None, found, "the same words and contexts at all checkpoints", _AGAIN)
    by_word: dict[str, list[tuple[str, int]]] = {}
    for key in tables[0]:
        by_word.setdefault(key[0], []).append(key)
    return [Curve(word, tuple(tuple(table[key] for key in keys) for table in tables)) for word, keys in by_word.items()]


def _table(one: MeasuredCheckpoint) -> dict[tuple[str, int], float]:
    return {(row["target_word"], row["context_id"]): row["surprisal"] for row in one.document["results"]}


def _json(file: Path, cure: str) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadDataError(str(file), None, str(error), "a readable JSON file", cure) from error


def _number(file: Path, line: int, row: Mapping[str, str | None], name: str) -> float:
    text = row[name]
    if text in {"", "NA", "NaN", "nan"}:
        return nan
    try:
        value = float(text or "")
    except ValueError:
        value = nan
    if not isfinite(value):
        raise BadDataError(str(file), line, f"{name} = {text!r}", "a number, or NA", f"mend the row or {_FRESH}")
    return value
