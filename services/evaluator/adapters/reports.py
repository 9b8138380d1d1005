"""Writes an evaluation's report.json, whole or not at all; it comes after the suites' own folders."""

from pathlib import Path

from fabula_proto import EvaluationReport
from services.evaluator.adapters.files import write_whole
from services.evaluator.errors import EvaluatorError

REPORT = "report.json"


def write_report(folder: Path, report: EvaluationReport) -> Path:
    """Write `<folder>/report.json`.

    Raises:
        EvaluatorError: the folder cannot be written.
    """
    try:
        write_whole(folder / REPORT, report.model_dump_json(indent=2) + "\n")
    except OSError as error:
        raise EvaluatorError(
            f"the report cannot be written to {folder}: {error}; make room or give another folder"
        ) from error
    return folder / REPORT
