"""Documents from files: plain text and JSON lines, alone or in a folder."""

import gzip
import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from services.student_trainer.corpus_errors import CorpusError

TEXT_SUFFIXES = (".txt", ".train")
JSON_SUFFIXES = (".jsonl", ".jsonl.gz")
_BLANK_LINES = re.compile(r"\n[ \t]*\n\s*")


@dataclass(frozen=True)
class FileRow:
    """A document, and the split it says it belongs to."""

    text: str
    split: str | None


def read_path(path: Path, text_field: str) -> Iterator[FileRow]:
    """Documents of a file, or of every corpus file in a folder.

    Raises:
        CorpusError: there is nothing, or a file cannot be read.
    """
    if path.is_file():
        return _read_file(path, text_field)
    if not path.exists():
        raise CorpusError(
            f"corpus {path} does not exist (looked in {Path.cwd()}); give a file, a folder, hf:<dataset id> or grammar"
        )
    files = sorted(p for p in path.rglob("*") if p.is_file() and _is_corpus_file(p.relative_to(path)))
    if not files:
        raise CorpusError(f"folder {path} holds no corpus file; expected {', '.join((*TEXT_SUFFIXES, *JSON_SUFFIXES))}")
    return (row for file in files for row in _read_file(file, text_field))


def _is_corpus_file(relative: Path) -> bool:
    hidden = any(part.startswith(".") for part in relative.parts)
    return not hidden and relative.name.endswith((*TEXT_SUFFIXES, *JSON_SUFFIXES))


def _read_file(path: Path, text_field: str) -> Iterator[FileRow]:
    if path.stat().st_size == 0:
        raise CorpusError(f"corpus file {path} is empty; fill it or remove it")
    if path.name.endswith(JSON_SUFFIXES):
        return _read_json_lines(path, text_field)
    if path.name.endswith(TEXT_SUFFIXES):
        return _read_text(path)
    raise CorpusError(
        f"corpus file {path} is of no known kind; expected a name ending in "
        f"{', '.join((*TEXT_SUFFIXES, *JSON_SUFFIXES))}"
    )


def _read_text(path: Path) -> Iterator[FileRow]:
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig").replace("\r\n", "\n").strip()
    except UnicodeDecodeError as error:
        raise _not_utf8(path, data.count(b"\n", 0, error.start) + 1, error) from error
    documents = _BLANK_LINES.split(text)
    if len(documents) == 1:
        documents = text.splitlines()
    for document in documents:
        yield FileRow(document, None)


def _read_json_lines(path: Path, text_field: str) -> Iterator[FileRow]:
    packed = path.name.endswith(".gz")
    try:
        with cast(BinaryIO, gzip.open(path, "rb")) if packed else path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield _parse(path, number, line, text_field)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise CorpusError(
            f"corpus file {path} is not a whole gzip file ({error}); compress or copy it again"
        ) from error


def _parse(path: Path, number: int, line: bytes, text_field: str) -> FileRow:
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise _not_utf8(path, number, error) from error
    except json.JSONDecodeError as error:
        raise CorpusError(f"{path}:{number} is not JSON: {error}; expected one object a line") from error
    if not isinstance(row, dict):
        raise CorpusError(f"{path}:{number} holds a JSON {type(row).__name__}; expected one object a line")
    return row_of(row, text_field, f"{path}:{number}")


def row_of(row: dict[str, object], text_field: str, place: str) -> FileRow:
    """A row of any dataset as a document.

    Raises:
        CorpusError: the text field is missing or no text, or `split` is no text.
    """
    if text_field not in row:
        found = ", ".join(map(str, row)) or "none"
        raise CorpusError(f"{place} has no key {text_field!r}; it has {found}. Set corpus.text_field to one of them.")
    text, split = row[text_field], row.get("split")
    if not isinstance(text, str):
        raise CorpusError(f"{place}: {text_field} is {type(text).__name__} {text!r:.60}; expected a string")
    if split is not None and not isinstance(split, str):
        raise CorpusError(f"{place}: split is {split!r}; expected train, validation or test")
    return FileRow(text, split)


def _not_utf8(path: Path, line: int, error: UnicodeDecodeError) -> CorpusError:
    byte = error.object[error.start]
    cure = f"convert it, for instance with iconv -f latin1 -t utf-8 {path.name}"
    return CorpusError(f"{path}:{line} is not UTF-8 (byte 0x{byte:02x}); {cure}")
