"""Writes an evaluation: predictions first, report.json last; each file whole or not at all."""

import os
from collections.abc import Mapping
from pathlib import Path

from fabula_proto import EvaluationReport
from services.evaluator.errors import EvaluatorError

REPORT = "report.json"


def write_evaluation(folder: Path, report: EvaluationReport, files: Mapping[str, Mapping[str, str]]) -> Path:
    """Write `<folder>/<suite>/<name>` for each of `files` (suite -> path -> text), then `<folder>/report.json`.

    Raises:
        EvaluatorError: the folder cannot be written.
    """
    try:
        for suite, contents in files.items():
            for name, text in contents.items():
                _write(folder / suite / name, text)
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
