"""A run's evaluations as they lie in its folder: reports, and the files of their suites. No torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from fabula_proto import EvaluationReport, SuiteResult
from services.local.errors import CommandError
from services.local.run_files import RunFiles, checked_folder

T = TypeVar("T")


@dataclass(frozen=True)
class Evaluated:
    """One evaluation. A checkpoint may have several: `name` is the folder's, and is the checkpoint's for the usual."""

    folder: Path
    report: EvaluationReport

    @property
    def name(self) -> str:
        """Of the folder below evaluations/."""
        return self.folder.name

    def result(self, suite: str) -> SuiteResult | None:
        """What the report says of a suite; none where it was not measured."""
        return next((result for result in self.report.suites if result.suite == suite), None)

    def read(self, suite: str, name: str, kind: TypeAdapter[T]) -> T | None:
        """A JSON file of a suite; none where there is no such file.

        Raises:
            CommandError: it cannot be read, or holds something else.
        """
        path = self.folder / suite / name
        try:
            return kind.validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            said = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
            raise CommandError(f"{path} cannot be read: {said}; evaluate the checkpoint again", exit_code=1) from error


@dataclass(frozen=True)
class EvaluatedRun:
    """A run's evaluations in the order of training, and the reports that cannot be read, each with its reason."""

    folder: Path
    evaluations: tuple[Evaluated, ...]
    problems: tuple[str, ...]

    @property
    def name(self) -> str:
        """The run's."""
        return self.folder.name

    def start(self) -> str | None:
        """Name of the checkpoint that interaction started from, or would start from; none where that is unknown."""
        files = RunFiles(self.folder)
        run_file = files.run_file()
        if run_file is not None and run_file.interact.start:
            return Path(run_file.interact.start).name
        kept = [facts.name for facts in files.checkpoints() if facts.stage == "pretrain"]
        seen = [one.report.checkpoint for one in self.evaluations if one.report.stage == "pretrain"]
        return next(reversed(kept or seen), None)


def read_run(run_dir: Path) -> EvaluatedRun:
    """Every evaluation of the run in `run_dir`.

    Raises:
        CommandError: there is no run, or nothing of it was evaluated.
    """
    folder = checked_folder(run_dir)
    found, problems = [], []
    for path in sorted(folder.glob("evaluations/*/report.json")):
        try:
            found.append(Evaluated(path.parent, EvaluationReport.from_json(path.read_bytes())))
        except (OSError, ValidationError) as error:
            problems.append(f"{path} cannot be read: {str(error).splitlines()[0]}")
    if not found:
        said = "; ".join(problems) or "there is no evaluations/<checkpoint>/report.json in it"
        raise CommandError(
            f"no checkpoint of {folder} was evaluated: {said}. Measure one with: fabula evaluate "
            f"{folder}/checkpoints/<checkpoint>",
            exit_code=1,
        )
    return EvaluatedRun(folder, tuple(sorted(found, key=_order)), tuple(problems))


def _order(one: Evaluated) -> tuple[bool, int, int, str, bool, str]:
    report = one.report
    words = report.pretraining_words, report.interaction_words
    return report.stage == "interact", *words, report.checkpoint, one.name != report.checkpoint, one.name


def suites_of(runs: Sequence[EvaluatedRun]) -> list[str]:
    """The suites that any evaluation knows of, in the order of the reports."""
    return list(dict.fromkeys(result.suite for run in runs for one in run.evaluations for result in one.report.suites))
