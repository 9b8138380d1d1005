"""Benchmark items from a folder in the BabyLM 2025 `evaluation_data` layout, or of original BLiMP files.

Accepted as `folder`: one that contains `fast_eval` or `full_eval` (the fast one is taken where both have the suite),
one of these two themselves, a folder whose own files are the suite's JSONL. Entity tracking may also be the archive
`entity_tracking_fast.zip` in or beside the folder; it is read in memory and never unpacked, as its authors ask.
"""

import json
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.evaluator.errors import BadDataError, MissingDataError
from services.evaluator.items import Item, ItemSet, choice, minimal_pair
from services.evaluator.suites.entity_tracking import SPLITS

ARCHIVE_PASSWORD = b"babylm"  # public: it keeps the items out of training crawls
DIRECTORIES = {
    "blimp": ("blimp_fast", "blimp_filtered", "blimp"),
    "blimp_supplement": ("supplement_fast", "supplement_filtered", "supplement"),
    "entity_tracking": ("entity_tracking_fast", "entity_tracking"),
}
GET_IT = "the BabyLM 2025 evaluation_data is at https://osf.io/ryjfm/"

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Line:
    """One row of a data file and where it stands."""

    where: str
    stem: str
    number: int
    row: Row

    def text(self, key: str) -> str:
        """The non-empty string under `key`.

        Raises:
            BadDataError: it is missing, empty or something else.
        """
        value = self.row.get(key)
        if not isinstance(value, str) or not value.strip():
            raise self.bad(f"{key} = {value!r}", f"a non-empty string under {key!r}")
        return value

    def bad(self, value: str, expected: str) -> BadDataError:
        """An error about this line."""
        return BadDataError(self.where, self.number, value, expected, "mend the row or take a fresh copy of the file")


def load_blimp(folder: Path) -> ItemSet:
    """Minimal pairs of BLiMP: `sentence_good`, `sentence_bad`, and where given `UID`, `field`, `linguistics_term`."""
    return _load(folder, "blimp", _blimp_item)


def load_blimp_supplement(folder: Path) -> ItemSet:
    """Minimal pairs of the BLiMP supplement; a file's name is its paradigm."""
    return _load(folder, "blimp_supplement", _blimp_item)


def load_entity_tracking(folder: Path) -> ItemSet:
    """Questions `input_prefix`, `options`, `numops` from regular.jsonl, ambiref.jsonl and move_contents.jsonl."""
    return _load(folder, "entity_tracking", _entity_item)


def check_folder(folder: Path) -> None:
    """Make sure that the folder holds evaluation data of at least one suite; files are not read yet.

    Raises:
        BadDataError: it holds none.
    """
    for suite in DIRECTORIES:
        if _directory(folder, suite) is not None:
            return
    problem = _missing(folder, "blimp")
    if isinstance(problem, BadDataError):
        raise problem


def _load(folder: Path, suite: str, item: Callable[[Line], Item]) -> ItemSet:
    """All items of `suite`.

    Raises:
        BadDataError: the folder is none, or a file in it holds a row that cannot be used.
        MissingDataError: the folder has data, only none for this suite.
    """
    if not folder.is_dir():
        raise BadDataError(str(folder), None, "no folder", "a folder of evaluation data", f"check the path; {GET_IT}")
    directory = _directory(folder, suite)
    if directory is not None:
        files = sorted(p for p in directory.glob("*.jsonl") if suite != "entity_tracking" or p.stem in SPLITS)
        if not files:
            raise BadDataError(str(directory), None, "no usable .jsonl file", _wanted(suite), GET_IT)
        lines = (line for file in files for line in _file_lines(file))
        return ItemSet(tuple(item(line) for line in lines), str(directory))
    archive = _archive(folder) if suite == "entity_tracking" else None
    if archive is not None:
        return ItemSet(tuple(item(line) for line in _archive_lines(archive)), str(archive))
    raise _missing(folder, suite)


def _missing(folder: Path, suite: str) -> BadDataError | MissingDataError:
    present = [name for name in DIRECTORIES if _directory(folder, name) is not None]
    if present or _archive(folder) is not None:
        return MissingDataError(
            f"{folder} has no {' or '.join(DIRECTORIES[suite])}; {_wanted(suite)} is needed; {GET_IT}"
        )
    names = sorted(p.name for p in folder.iterdir())[:6]
    expected = "fast_eval, full_eval, blimp_fast, supplement_fast, entity_tracking_fast or BLiMP's JSONL files"
    return BadDataError(str(folder), None, f"{names}", expected, f"give the folder that contains them; {GET_IT}")


def _wanted(suite: str) -> str:
    return " or ".join(f"{s}.jsonl" for s in SPLITS) if suite == "entity_tracking" else "one .jsonl file a paradigm"


def _roots(folder: Path) -> list[Path]:
    nested = [folder / "evaluation_data"]
    return [folder, *(base / split for base in (folder, *nested) for split in ("fast_eval", "full_eval"))]


def _directory(folder: Path, suite: str) -> Path | None:
    """The folder with the suite's files: below `folder`, or `folder` itself by its name or its first row."""
    for root in _roots(folder):
        for name in DIRECTORIES[suite]:
            if (root / name).is_dir():
                return root / name
    return folder if _suite_of(folder) == suite else None


def _suite_of(folder: Path) -> str | None:
    files = sorted(folder.glob("*.jsonl"))
    if not files:
        return None
    named = next((suite for suite, names in DIRECTORIES.items() if folder.name in names), None)
    if named is not None:
        return named
    if any(file.stem in SPLITS for file in files):
        return "entity_tracking"
    first = next((line.row for line in _file_lines(files[0])), {})
    if "sentence_good" not in first:
        return None
    return "blimp" if "field" in first or "UID" in first else "blimp_supplement"


def _archive(folder: Path) -> Path | None:
    """The entity-tracking archive in the folder, in one of its splits, or one level up."""
    for root in (*_roots(folder), folder.resolve().parent):
        for name in DIRECTORIES["entity_tracking"]:
            if (root / f"{name}.zip").is_file():
                return root / f"{name}.zip"
    return None


def _file_lines(file: Path) -> Iterator[Line]:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadDataError(str(file), None, str(error), "a readable UTF-8 file", "take a fresh copy of it") from error
    return _rows(str(file), file.stem, text)


def _archive_lines(archive: Path) -> Iterator[Line]:
    try:
        with zipfile.ZipFile(archive) as opened:
            members = sorted(n for n in opened.namelist() if Path(n).suffix == ".jsonl" and Path(n).stem in SPLITS)
            texts = [(name, opened.read(name, pwd=ARCHIVE_PASSWORD).decode("utf-8")) for name in members]
    except (OSError, RuntimeError, zipfile.BadZipFile, zlib.error, UnicodeDecodeError) as error:
        expected = "a zip archive with the password that the BabyLM data has"
        raise BadDataError(str(archive), None, str(error), expected, f"take a fresh copy; {GET_IT}") from error
    if not texts:
        raise BadDataError(str(archive), None, "no usable member", _wanted("entity_tracking"), GET_IT)
    for name, text in texts:
        yield from _rows(f"{archive}!{name}", Path(name).stem, text)


def _rows(where: str, stem: str, text: str) -> Iterator[Line]:
    numbered = [(n, line) for n, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if not numbered:
        raise BadDataError(where, None, "an empty file", "one JSON object a line", "take a fresh copy of the file")
    for number, line in numbered:
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise BadDataError(
                where, number, line, f"a JSON object ({error.msg})", "take a fresh copy of the file"
            ) from error
        if not isinstance(row, dict):
            raise BadDataError(where, number, line, "a JSON object", "take a fresh copy of the file")
        yield Line(where, stem, number, row)


def _blimp_item(line: Line) -> Item:
    good, bad = line.text("sentence_good"), line.text("sentence_bad")
    if "field" not in line.row and "UID" not in line.row:
        return minimal_pair(line.stem, good, bad)
    uid = line.text("UID") if "UID" in line.row else line.stem
    field = (
        [("field", line.text("field").replace("syntax_semantics", "syntax/semantics"))] if "field" in line.row else []
    )
    term = [("term", line.text("linguistics_term"))] if "linguistics_term" in line.row else []
    return minimal_pair(uid, good, bad, (*field, *term))


def _entity_item(line: Line) -> Item:
    prefix, options, ops = line.text("input_prefix"), line.row.get("options"), line.row.get("numops")
    if not isinstance(options, list) or len(options) < 2 or not all(isinstance(o, str) and o for o in options):
        raise line.bad(f"options = {options!r}", "a list of two or more non-empty strings, the right one first")
    if not isinstance(ops, int) or isinstance(ops, bool) or ops < 0:
        raise line.bad(f"numops = {ops!r}", "a number of operations, 0 or more")
    return choice(f"{line.stem}_{ops}_ops", prefix, options, (("split", line.stem), ("ops", str(ops))))
