"""The use case: measure one checkpoint on every suite that is asked for, and write the report."""

import os
import time
from dataclasses import dataclass, field

import torch

from fabula_proto import EvaluationReport, SuiteResult
from services.evaluator.adapters.checkpoint import load_checkpoint
from services.evaluator.adapters.reports import write_evaluation
from services.evaluator.adapters.run_config import read_run_config
from services.evaluator.bench import Bench
from services.evaluator.engine import LogProbabilityEngine
from services.evaluator.errors import AbandonedError, EvaluatorError, MissingDataError
from services.evaluator.generated import SOURCE
from services.evaluator.progress import Progress, Watch, unwatched
from services.evaluator.request import EvaluationRequest
from services.evaluator.runners import RUNNERS
from services.evaluator.settings import EvaluatorSettings
from services.evaluator.suites import storytelling
from services.evaluator.suites.outcome import SuiteOutcome


@dataclass(slots=True)
class _Results:
    suites: list[SuiteResult] = field(default_factory=list)
    files: dict[str, dict[str, str]] = field(default_factory=dict)
    outcomes: list[SuiteOutcome] = field(default_factory=list)


def evaluate_checkpoint(
    request: EvaluationRequest, settings: EvaluatorSettings, progress: Watch = unwatched
) -> EvaluationReport:
    """Measure `request.path` and write `request.output`.

    A suite that cannot be measured is `failed` or `skipped` with its reason, and the others go on. Nothing is written
    before everything is measured.

    Args:
        request: Which checkpoint, and where the report goes.
        settings: What is measured, and with what.
        progress: Called often; whatever it raises ends the evaluation with nothing written (AbandonedError).

    Raises:
        CheckpointError: the checkpoint cannot be loaded; `failed_report` says so as a report.
        AbandonedError: `progress` asked to stop.
        EvaluatorError: run.yaml cannot be read, or the report cannot be written.
    """
    start = time.monotonic()
    # Half the CPUs by default: a trainer and a teacher want theirs, and threads that wait for each other spin.
    torch.set_num_threads(settings.torch_threads or max(1, (os.cpu_count() or 1) // 2))
    progress(Progress("loading", 0, 1))
    checkpoint = load_checkpoint(request.path, settings.device)
    engine = LogProbabilityEngine(checkpoint.model, checkpoint.tokenizer, settings.token_budget)
    bench = Bench(settings, request, read_run_config(request.run_folder), checkpoint, engine, progress)
    results = _Results()
    for suite in settings.suites:
        _measure(suite, bench, results)
    report = _report(request, settings, tuple(results.suites), results.outcomes, time.monotonic() - start)
    write_evaluation(request.output, report, results.files)
    return report


def failed_report(request: EvaluationRequest, settings: EvaluatorSettings, reason: str) -> EvaluationReport:
    """Write and return a report in which every suite failed for one reason, such as a damaged checkpoint."""
    suites = tuple(SuiteResult(suite=suite, status="failed", source="none", reason=reason) for suite in settings.suites)
    report = _report(request, settings, suites, [], 0.0)
    write_evaluation(request.output, report, {})
    return report


def _report(
    request: EvaluationRequest,
    settings: EvaluatorSettings,
    suites: tuple[SuiteResult, ...],
    outcomes: list[SuiteOutcome],
    seconds: float,
) -> EvaluationReport:
    return EvaluationReport(
        run=request.run,
        checkpoint=request.checkpoint,
        path=str(request.path),
        stage=request.stage,
        pretraining_words=request.pretraining_words,
        interaction_words=request.interaction_words,
        suites=suites,
        stories=tuple(story for outcome in outcomes for story in outcome.stories),
        seconds=seconds,
        worker=settings.worker,
    )


def _measure(suite: str, bench: Bench, results: _Results) -> None:
    """Run one suite and note its result, whatever becomes of it."""
    start = time.monotonic()
    bench.watch(Progress(suite, 0, 1))
    folder = bench.settings.eval_data
    source = str(folder) if folder is not None and suite != storytelling.NAME else SOURCE
    try:
        measured = RUNNERS[suite](bench)
    except AbandonedError:
        raise
    except EvaluatorError as error:
        results.suites.append(
            SuiteResult(
                suite=suite,
                status="skipped" if isinstance(error, MissingDataError) else "failed",
                source=source,
                reason=str(error),
                seconds=time.monotonic() - start,
            )
        )
        return
    outcome = measured.outcome
    results.outcomes.append(outcome)
    results.files[suite] = outcome.files
    results.suites.append(
        SuiteResult(
            suite=suite,
            status="ok",
            source=outcome.source,
            headline=outcome.headline,
            unit=outcome.unit,
            measures=outcome.measures,
            reason=measured.note,
            seconds=time.monotonic() - start,
            teacher=outcome.teacher,
            results_path=measured.results_path,
        )
    )
