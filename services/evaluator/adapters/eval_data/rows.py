"""JSON rows of a suite's files, from a folder or from an archive that is read in memory and never unpacked."""

import json
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from services.evaluator.adapters.eval_data.layout import GET_IT, PLACES
from services.evaluator.errors import BadDataError

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Line:
    """One row of a data file and where it stands. `stem` is the file's name without its ending."""

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

    def number_of(self, key: str) -> float:
        """The finite number under `key`.

        Raises:
            BadDataError: it is missing, not finite or something else.
        """
        value = self.row.get(key)
        if not isinstance(value, int | float) or isinstance(value, bool) or not isfinite(value):
            raise self.bad(f"{key} = {value!r}", f"a number under {key!r}")
        return float(value)

    def bad(self, value: str, expected: str) -> BadDataError:
        """An error about this line."""
        return BadDataError(self.where, self.number, value, expected, "mend the row or take a fresh copy of the file")


def read_lines(place: Path, suite: str, stems: Sequence[str] = ()) -> Iterator[Line]:
    """All rows of the .jsonl files in `place`, a folder or the suite's archive, in the order of the files' names.

    Args:
        place: What `find` or `require` gave.
        suite: Whose password and words are used.
        stems: Names without `.jsonl` of the files that are read; none: all.

    Raises:
        BadDataError: no such file, or one that cannot be read, is empty or holds something else.
    """
    if place.suffix == ".zip":
        yield from _archive_lines(place, suite, stems)
        return
    files = sorted(p for p in place.glob("*.jsonl") if not stems or p.stem in stems)
    if not files:
        raise BadDataError(str(place), None, "no usable .jsonl file", PLACES[suite].wanted, GET_IT)
    for file in files:
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise BadDataError(
                str(file), None, str(error), "a readable UTF-8 file", "take a fresh copy of it"
            ) from error
        yield from _rows(str(file), file.stem, text)


def _archive_lines(archive: Path, suite: str, stems: Sequence[str]) -> Iterator[Line]:
    password = PLACES[suite].password or b""
    try:
        with zipfile.ZipFile(archive) as opened:
            members = sorted(n for n in opened.namelist() if _is_wanted(Path(n), stems))
            texts = [(name, opened.read(name, pwd=password).decode("utf-8")) for name in members]
    except (OSError, RuntimeError, zipfile.BadZipFile, zlib.error, UnicodeDecodeError) as error:
        # RuntimeError: another password, or an encryption that Python does not know.
        expected = f"a zip archive with the password {password.decode()}"
        cure = f"take a fresh copy, or unpack it outside any repository; {GET_IT}"
        raise BadDataError(str(archive), None, str(error), expected, cure) from error
    if not texts:
        raise BadDataError(str(archive), None, "no usable member", PLACES[suite].wanted, GET_IT)
    for name, text in texts:
        yield from _rows(f"{archive}!{name}", Path(name).stem, text)


def _is_wanted(member: Path, stems: Sequence[str]) -> bool:
    # macOS leaves `__MACOSX/._<name>` beside what it packs.
    return member.suffix == ".jsonl" and not member.name.startswith(".") and (not stems or member.stem in stems)


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
