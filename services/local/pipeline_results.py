"""A run's results in the BabyLM 2025 pipeline's layout: `results/<model>/<revision>/zero_shot/...`, `finetune/...`."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any

from fabula_proto import SuiteResult
from services.local.errors import CommandError
from services.local.evaluated import Evaluated, EvaluatedRun

MAIN = "main"
AOA_FILE = "AoA_word/surprisal.json"
PIPELINE_FILES = frozenset(
    {
        "best_temperature_report.txt",
        "correlations.txt",
        "prediction.jsonl",
        "predictions.json",
        "predictive_power.jsonl",
        "predictive_power_spillover.jsonl",
        "report.txt",
        "results.txt",
        "surprisal.json",
    }
)
"""Those that the pipeline writes; our own records beside them stay where they are."""


def _revisions(*millions: int) -> tuple[str, ...]:
    return tuple(f"chck_{number}M" for number in millions)


_STRICT = _revisions(*range(1, 10), *range(10, 100, 10), *range(100, 1001, 100))
TRACKS: Mapping[str, tuple[str, ...]] = {
    "interaction": _STRICT,
    "strict": _STRICT,
    "strict-small": _revisions(*range(1, 10), *range(10, 101, 10)),
}
"""Track -> the revisions that its submissions are measured at."""


@dataclass(frozen=True)
class Measured:
    """One suite of one evaluation."""

    evaluation: Evaluated
    result: SuiteResult


@dataclass(frozen=True)
class PipelineResults:
    """What a run has for the pipeline. `final` is the checkpoint that stands for `main`."""

    model: str
    final: str
    backend: str
    revisions: tuple[str, ...]
    """The track's; its submissions hold scores at each of them."""
    files: Mapping[str, Mapping[str, Path]]
    """Revision -> path below it -> our file."""
    suites: Mapping[str, Mapping[str, Measured]]
    """Revision -> folder of the suite's results below it -> the suite."""

    def read(self, revision: str, path: str) -> Any:
        """A JSON file of a revision; none where there is none.

        Raises:
            CommandError: it cannot be read.
        """
        file = self.files.get(revision, {}).get(path)
        return None if file is None else _read_json(file)

    @cached_property
    def surprisals(self) -> dict[str, Any]:
        """Revision -> its document for the age of acquisition, for those of `revisions` that have one."""
        path = f"zero_shot/{self.backend}/{AOA_FILE}"
        found = {revision: self.read(revision, path) for revision in self.revisions}
        return {revision: document for revision, document in found.items() if document is not None}

    @cached_property
    def merged_surprisals(self) -> str | None:
        """The pipeline's one document of all `revisions`; none where there is nothing to merge."""
        from services.evaluator.suites import aoa  # brings torch

        return aoa.merged(list(self.surprisals.values()), self.model) if self.surprisals else None


def collect(
    run: EvaluatedRun, track: str = "interaction", final: str | None = None, backend: str | None = None
) -> PipelineResults:
    """Find the files of every suite that was measured on BabyLM data.

    Args:
        run: Its evaluations. Two of one checkpoint, such as one on fast_eval and one on full_eval, are put together; of
            a suite that both measured on the same data, the one in the folder of the checkpoint's name counts.
        track: One of TRACKS.
        final: The checkpoint that also stands for `main`; none: the last one evaluated.
        backend: causal, mlm or mntp; none: the only one there is.

    Raises:
        CommandError: there is no such checkpoint or backend, or nothing to write.
    """
    files: dict[str, dict[str, Path]] = {}
    suites: dict[str, dict[str, Measured]] = {}
    for one in run.evaluations:
        for result in one.report.suites:
            of_revision = suites.setdefault(one.report.checkpoint, {})
            if result.status == "ok" and result.results_path is not None and result.results_path not in of_revision:
                of_revision[result.results_path] = Measured(one, result)
                files.setdefault(one.report.checkpoint, {}).update(
                    _files(one.folder / result.suite, result.results_path)
                )
    known = list(dict.fromkeys(one.report.checkpoint for one in run.evaluations))
    if final is not None and final not in known:
        raise CommandError(f"{run.name} has no evaluated checkpoint {final!r}; it has {', '.join(known)}")
    if not files:
        raise CommandError(
            f"nothing of {run.name} was measured on BabyLM data; measure it with: fabula evaluate CHECKPOINT "
            "--eval-data FOLDER",
            exit_code=1,
        )
    # The pipeline cuts a name at its last dot, when it writes and when it reads.
    return PipelineResults(
        PurePath(run.name).stem, final or known[-1], _backend(files, backend), TRACKS[track], files, suites
    )


def _files(folder: Path, results_path: str) -> dict[str, Path]:
    return {
        f"{results_path}/{file.relative_to(folder).as_posix()}": file
        for file in sorted(folder.rglob("*"))
        if file.name in PIPELINE_FILES
    }


def _backend(files: Mapping[str, Mapping[str, Path]], wanted: str | None) -> str:
    paths = [PurePath(path).parts for of_revision in files.values() for path in of_revision]
    found = sorted({parts[1] for parts in paths if parts[0] == "zero_shot"})
    if wanted in found or (wanted is None and len(found) == 1):
        return wanted or found[0]
    if wanted is None and not found:
        return "causal"
    raise CommandError(
        f"there are results with the backends {', '.join(found) or 'none'}; give one of them with --backend"
    )


def write_results(results: PipelineResults, to: Path, submission: tuple[str, str] | None = None) -> Path:
    """Write `<to>/results/<model>`, whole or not at all; surprisals of all revisions go below `main` in one file.

    Args:
        results: What there is.
        to: Folder in which `results` is made where there is none.
        submission: Name and text of a file beside the revisions.

    Raises:
        CommandError: the model's folder is there already, or it cannot be written.
    """
    place = to / "results" / results.model
    building = place.with_name(f".building-{results.model}")
    if place.exists():
        raise CommandError(f"{place} is there already; delete it or give another folder with --to")
    try:
        shutil.rmtree(building, ignore_errors=True)
        for revision, of_revision in {**results.files, MAIN: results.files.get(results.final, {})}.items():
            for path, file in of_revision.items():
                target = building / revision / path
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, target)
        if results.merged_surprisals is not None:
            target = building / MAIN / "zero_shot" / results.backend / AOA_FILE
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(results.merged_surprisals, encoding="utf-8")
        if submission is not None:
            (building / submission[0]).write_text(submission[1], encoding="utf-8")
        building.rename(place)
    except OSError as error:
        raise CommandError(f"the results cannot be written to {place}: {error.strerror}", exit_code=1) from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return place


def _read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CommandError(f"{file} cannot be read: {error}; evaluate the checkpoint again", exit_code=1) from error
