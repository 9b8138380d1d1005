"""Finished suites on disk: each folder appears whole, so that an evaluation that was killed repeats none."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from pydantic import Field, ValidationError

from fabula_proto import SampleStory, SuiteResult
from fabula_proto.base import Message
from services.evaluator.adapters.files import write_synced
from services.evaluator.errors import SuiteFailedError

RECORD = "result.json"
_NEW, _OLD = ".new-", ".old-"


class SuiteRecord(Message):
    """One finished suite of one checkpoint."""

    checkpoint_digest: str = Field(description="Of the checkpoint's files; a changed one makes the record worthless.")
    digest: str = Field(description="Of everything the result depends on; the same one need not be measured again.")
    result: SuiteResult
    stories: tuple[SampleStory, ...] = ()


def read_records(folder: Path) -> dict[str, SuiteRecord]:
    """The finished suites in an evaluation's folder. One that cannot be read counts as not finished."""
    records = {}
    for path in sorted(folder.glob(f"*/{RECORD}")):
        if path.parent.name.startswith("."):
            continue
        try:
            record = SuiteRecord.from_json(path.read_bytes())
        except (OSError, ValidationError):
            continue
        if record.result.suite == path.parent.name:
            records[path.parent.name] = record
    return records


def write_record(folder: Path, record: SuiteRecord, files: Mapping[str, str]) -> None:
    """Put `<folder>/<suite>` in place with `files` (path below it -> text) and the record, instead of an earlier one.

    Raises:
        SuiteFailedError: it cannot be written; what was there is left as it was.
    """
    suite = record.result.suite
    new, old, place = folder / f"{_NEW}{suite}", folder / f"{_OLD}{suite}", folder / suite
    try:
        for leftover in (new, old):
            shutil.rmtree(leftover, ignore_errors=True)
        for name, text in {**files, RECORD: record.to_json() + "\n"}.items():
            write_synced(new / name, text)
        if place.exists():
            place.rename(old)
        new.rename(place)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        shutil.rmtree(new, ignore_errors=True)
        if old.exists() and not place.exists():
            old.rename(place)
        raise SuiteFailedError(
            f"measured, but its results cannot be written to {folder}: {error}; make room and measure it again"
        ) from error


def remove_leftovers(folder: Path) -> None:
    """Take away what a process that was killed left half-written, and put back what it was about to replace."""
    for path in folder.glob(f"{_OLD}*"):
        place = folder / path.name.removeprefix(_OLD)
        if not place.exists():
            path.rename(place)
    for path in (*folder.glob(f"{_OLD}*"), *folder.glob(f"{_NEW}*")):
        shutil.rmtree(path, ignore_errors=True)
