"""The use case: measure one checkpoint on every suite that is asked for, and write the report."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from fabula_proto import EvaluationReport, SuiteResult
from services.evaluator.adapters import eval_data
from services.evaluator.adapters.checkpoint import LoadedCheckpoint, load_checkpoint
from services.evaluator.adapters.reports import write_evaluation
from services.evaluator.adapters.run_config import RunConfig, read_run_config
from services.evaluator.adapters.teacher_client import TeacherClient
from services.evaluator.engine import ItemsDone, LogProbabilityEngine, Scorer
from services.evaluator.errors import AbandonedError, EvaluatorError, MissingDataError
from services.evaluator.fitting import leave_out_long
from services.evaluator.generated import SOURCE
from services.evaluator.generated.box_stories import box_stories
from services.evaluator.generated.minimal_pairs import minimal_pairs
from services.evaluator.items import ItemSet
from services.evaluator.progress import Progress, Watch, unwatched
from services.evaluator.request import EvaluationRequest
from services.evaluator.settings import DEFAULT_NEW_TOKENS, DEFAULT_PROMPT, DEFAULT_STORIES, EvaluatorSettings
from services.evaluator.suites import blimp, blimp_supplement, entity_tracking, story_quality
from services.evaluator.suites.outcome import SuiteOutcome
from services.evaluator.writing import write_stories

LOOK_EVERY_S = 0.25

_Outcome = tuple[SuiteOutcome, str | None]  # with a note on what was left out, if anything was


@dataclass(frozen=True, slots=True)
class _Bench:
    """What the suites of one evaluation share."""

    settings: EvaluatorSettings
    run: RunConfig
    checkpoint: LoadedCheckpoint
    engine: LogProbabilityEngine
    watch: Watch


@dataclass(slots=True)
class _Results:
    suites: list[SuiteResult] = field(default_factory=list)
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
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
    bench = _Bench(settings, read_run_config(request.run_folder), checkpoint, engine, progress)
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


def _measure(suite: str, bench: _Bench, results: _Results) -> None:
    """Run one suite and note its result, whatever becomes of it."""
    start = time.monotonic()
    bench.watch(Progress(suite, 0, 1))
    folder = bench.settings.eval_data
    source = str(folder) if folder is not None and suite != story_quality.NAME else SOURCE
    try:
        outcome, note = _RUNNERS[suite](bench)
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
            reason=note,
            seconds=time.monotonic() - start,
            teacher=outcome.teacher,
        )
    )


def _done(bench: _Bench, suite: str) -> ItemsDone:
    return lambda done, total: bench.watch(Progress(suite, done, total))


def _rank(
    bench: _Bench,
    suite: str,
    load: Callable[[Path], ItemSet],
    generate: Callable[[int], ItemSet],
    evaluate: Callable[[ItemSet, Scorer, int, ItemsDone], SuiteOutcome],
) -> _Outcome:
    folder = bench.settings.eval_data
    items = generate(bench.settings.seed) if folder is None else load(folder)
    items, note = leave_out_long(items, bench.engine.lengths(items.items), bench.engine.context)
    return evaluate(items, bench.engine, bench.settings.seed, _done(bench, suite)), note


def _blimp(bench: _Bench) -> _Outcome:
    return _rank(bench, blimp.NAME, eval_data.load_blimp, minimal_pairs, blimp.evaluate)


def _blimp_supplement(bench: _Bench) -> _Outcome:
    def none(_: int) -> ItemSet:
        raise MissingDataError(
            "no folder of evaluation data was given, and the evaluator's own items stand in for blimp and "
            f"entity_tracking only; give one with --eval-data ({eval_data.GET_IT})"
        )

    return _rank(bench, blimp_supplement.NAME, eval_data.load_blimp_supplement, none, blimp_supplement.evaluate)


def _entity_tracking(bench: _Bench) -> _Outcome:
    return _rank(bench, entity_tracking.NAME, eval_data.load_entity_tracking, box_stories, entity_tracking.evaluate)


def _story_quality(bench: _Bench) -> _Outcome:
    settings, run = bench.settings, bench.run
    if settings.teacher_url is None:
        raise MissingDataError(
            "no teacher to judge stories; give one with --teacher-url, such as http://localhost:8001"
        )
    prompt = settings.prompt or run.prompt or DEFAULT_PROMPT
    written = write_stories(
        bench.checkpoint.model,
        bench.checkpoint.tokenizer,
        prompt,
        stories=settings.stories or run.stories or DEFAULT_STORIES,
        seed=settings.seed,
        max_new_tokens=settings.max_new_tokens or run.max_new_tokens or DEFAULT_NEW_TOKENS,
        batch_size=settings.story_batch,
        done=_done(bench, story_quality.NAME),
    )

    def wait(seconds: float) -> None:
        end = time.monotonic() + seconds
        while True:
            bench.watch(Progress(story_quality.NAME, len(written), len(written)))
            if (left := end - time.monotonic()) <= 0:
                return
            time.sleep(min(LOOK_EVERY_S, left))

    with TeacherClient(
        settings.teacher_url,
        chunk=settings.teacher_chunk,
        timeout_s=settings.teacher_timeout_s,
        patience_s=settings.teacher_patience_s,
        wait=wait,
    ) as teacher:
        stories = story_quality.Written(tuple(written), prompt, settings.seed)
        return story_quality.evaluate(stories, teacher, settings.seed), None


_RUNNERS: dict[str, Callable[[_Bench], _Outcome]] = {
    blimp.NAME: _blimp,
    blimp_supplement.NAME: _blimp_supplement,
    entity_tracking.NAME: _entity_tracking,
    story_quality.NAME: _story_quality,
}
