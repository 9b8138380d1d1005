"""Writes an evaluation's report.json, whole or not at all; it comes after the suites' own folders."""

import os
from pathlib import Path

from fabula_proto import EvaluationReport
from services.evaluator.errors import EvaluatorError

REPORT = "report.json"


def write_report(folder: Path, report: EvaluationReport) -> Path:
    """Write `<folder>/report.json`.

    Raises:
        EvaluatorError: the folder cannot be written.
    """
    try:
        _write(folder / REPORT, report.model_dump_json(indent=2) + "\n")
    except OSError as error:
        raise EvaluatorError(
            f"the report cannot be written to {folder}: {error}; make room or give another folder"
        ) from error
    return folder / REPORT


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
