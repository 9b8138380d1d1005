"""The use case: measure one checkpoint on every suite that is asked for, and write the report."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from fabula_proto import EvaluationReport, SampleStory, SuiteResult
from fabula_proto.allocator import keep_freed_memory
from services.evaluator.adapters import digests
from services.evaluator.adapters.checkpoint import load_checkpoint
from services.evaluator.adapters.memory import give_back
from services.evaluator.adapters.reports import write_report
from services.evaluator.adapters.run_config import RunConfig, read_run_config
from services.evaluator.adapters.suite_records import SuiteRecord, read_records, remove_leftovers, write_record
from services.evaluator.adapters.teacher_client import TeacherClient
from services.evaluator.bench import Bench, make_engine
from services.evaluator.errors import AbandonedError, CheckpointError, EvaluatorError, MissingDataError
from services.evaluator.generated import SOURCE
from services.evaluator.progress import Progress, Watch, unwatched
from services.evaluator.request import EvaluationRequest
from services.evaluator.runners import RUNNERS
from services.evaluator.settings import SUITES, EvaluatorSettings
from services.evaluator.suites import storytelling


@dataclass(slots=True)
class _Work:
    """One evaluation under way: what is asked, what is known already, what came out."""

    request: EvaluationRequest
    settings: EvaluatorSettings
    watch: Watch
    run: RunConfig
    checkpoint_digest: str
    suite_digests: dict[str, str]
    records: dict[str, SuiteRecord]
    failed: dict[str, SuiteResult] = field(default_factory=dict)
    bench: Bench | None = None

    def loaded(self) -> Bench:
        """The checkpoint, loaded when the first suite needs it."""
        if self.bench is None:
            self.watch(Progress("loading", 0, 1))
            given = self.settings
            checkpoint = load_checkpoint(
                self.request.path,
                given.device,
                backend=given.backend,
                dtype=given.dtype,
                trust_remote_code=given.trust_remote_code,
            )
            engine = make_engine(checkpoint, given.token_budget)
            self.bench = Bench(self.settings, self.request, self.run, checkpoint, engine, self.watch)
        return self.bench


def evaluate_checkpoint(
    request: EvaluationRequest,
    settings: EvaluatorSettings,
    progress: Watch = unwatched,
    finished: Callable[[SuiteResult], None] = lambda _: None,
) -> EvaluationReport:
    """Measure `request.path` and write `request.output`.

    A suite that cannot be measured is `failed` or `skipped` with its reason, and the others go on. A finished suite is
    kept on disk at once: where the same is asked of the same checkpoint again, it is taken from there. Suites that
    were measured before stay in report.json as long as the checkpoint is the same, also where they fail this time.

    Args:
        request: Which checkpoint, and where the report goes.
        settings: What is measured, and with what.
        progress: Called often; whatever it raises ends the evaluation with no report written (AbandonedError).
        finished: Told each suite's result when it is there.

    Raises:
        CheckpointError: the checkpoint cannot be loaded; `failed_report` says so as a report.
        AbandonedError: `progress` asked to stop.
        EvaluatorError: run.yaml cannot be read, or the report cannot be written.
    """
    start = time.monotonic()
    keep_freed_memory()
    # Half the CPUs by default: a trainer and a teacher want theirs, and threads that wait for each other spin.
    torch.set_num_threads(settings.torch_threads or max(1, (os.cpu_count() or 1) // 2))
    work = _begin(request, settings, progress)
    try:
        for suite in settings.chosen_suites:
            if (request.again and suite not in request.measured_again) or not _is_finished(work, suite):
                _measure(work, suite)
            finished(work.failed[suite] if suite in work.failed else work.records[suite].result)
    finally:
        work.bench = None
        give_back()
    measured = {name: record.result for name, record in work.records.items()}
    stories = tuple(story for record in work.records.values() for story in record.stories)
    seconds = time.monotonic() - start
    # What was measured before is not hidden by a later try that failed; who tried is told of the failure.
    write_report(request.output, _report(request, settings, work.failed | measured, stories, seconds))
    return _report(request, settings, measured | work.failed, stories, seconds)


def failed_report(request: EvaluationRequest, settings: EvaluatorSettings, reason: str) -> EvaluationReport:
    """Write and return a report in which every suite failed for one reason, such as a damaged checkpoint."""
    results = {
        suite: SuiteResult(suite=suite, status="failed", source="none", reason=reason)
        for suite in settings.chosen_suites
    }
    report = _report(request, settings, results, (), 0.0)
    write_report(request.output, report)
    return report


def _begin(request: EvaluationRequest, settings: EvaluatorSettings, progress: Watch) -> _Work:
    """What is on disk already, and the digests that say whether it still holds."""
    try:
        checkpoint = digests.checkpoint_digest(request.path)
    except OSError as error:
        raise CheckpointError(f"{request.path} cannot be read: {error}; give the folder of a checkpoint") from error
    data, run = digests.data_digest(settings.eval_data), read_run_config(request.run_folder)
    teacher = None
    if settings.teacher_url is not None and storytelling.NAME in settings.chosen_suites:
        with TeacherClient(settings.teacher_url, timeout_s=settings.teacher_timeout_s) as client:
            teacher = client.identity()
    suite_digests = {
        suite: digests.suite_digest(suite, settings, run, checkpoint, data, teacher)
        for suite in settings.chosen_suites
        if suite != storytelling.NAME or teacher is not None
    }
    remove_leftovers(request.output)
    records = read_records(request.output)
    kept = {name: record for name, record in records.items() if record.checkpoint_digest == checkpoint}
    return _Work(request, settings, progress, run, checkpoint, suite_digests, kept)


def _is_finished(work: _Work, suite: str) -> bool:
    record = work.records.get(suite)
    return record is not None and record.digest == work.suite_digests.get(suite)


def _measure(work: _Work, suite: str) -> None:
    """Run one suite and note its result, whatever becomes of it."""
    bench, start = work.loaded(), time.monotonic()
    bench.watch(Progress(suite, 0, 1))
    try:
        measured = RUNNERS[suite](bench)
        outcome = measured.outcome
        result = SuiteResult(
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
        digest = work.suite_digests.get(suite, "")
        record = SuiteRecord(
            checkpoint_digest=work.checkpoint_digest, digest=digest, result=result, stories=outcome.stories
        )
        write_record(work.request.output, record, outcome.files)
        work.records[suite] = record
    except AbandonedError:
        raise
    except (EvaluatorError, torch.OutOfMemoryError) as error:
        folder = work.settings.eval_data
        reason = str(error)
        if isinstance(error, torch.OutOfMemoryError):
            cure = "lower token_budget or story_batch, or set dtype to bfloat16 or device to cpu"
            reason = f"too little memory there; {cure}: {reason}"
        work.failed[suite] = SuiteResult(
            suite=suite,
            status="skipped" if isinstance(error, MissingDataError) else "failed",
            source=str(folder) if folder is not None and suite != storytelling.NAME else SOURCE,
            reason=reason,
            seconds=time.monotonic() - start,
        )


def _report(
    request: EvaluationRequest,
    settings: EvaluatorSettings,
    results: dict[str, SuiteResult],
    stories: tuple[SampleStory, ...],
    seconds: float,
) -> EvaluationReport:
    return EvaluationReport(
        run=request.run,
        checkpoint=request.checkpoint,
        path=str(request.path),
        stage=request.stage,
        pretraining_words=request.pretraining_words,
        interaction_words=request.interaction_words,
        suites=tuple(results[suite] for suite in SUITES if suite in results),
        stories=stories,
        seconds=seconds,
        worker=settings.worker,
    )
