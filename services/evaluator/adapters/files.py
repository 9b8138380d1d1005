"""Files that are whole or absent, and tables that are read with their line numbers."""

import csv
import os
from collections.abc import Sequence
from pathlib import Path

from services.evaluator.errors import BadDataError


def write_synced(path: Path, text: str) -> None:
    """Write a file, its folders included, and wait until it is on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def write_whole(path: Path, text: str) -> None:
    """Write a file, or replace it, in one step: a reader sees the old one or the new one.

    Raises:
        OSError: it cannot be written; nothing of it stays.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write_synced(temporary, text)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_table(file: Path, cure: str) -> tuple[Sequence[str], list[tuple[int, dict[str, str | None]]]]:
    """A CSV table's columns, and its rows with the line on which each ends.

    Raises:
        BadDataError: it cannot be read or is no table; `cure` ends the message.
    """
    try:
        with file.open(encoding="utf-8", newline="") as opened:
            reader = csv.DictReader(opened, strict=True)
            return reader.fieldnames or (), [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadDataError(str(file), None, str(error), "a readable UTF-8 table", cure) from error
