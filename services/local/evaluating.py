"""`fabula evaluate`: measure one checkpoint in this process, its stories judged by a teacher beside us."""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fabula_proto import EvaluationReport, SuiteResult
from services.local import http, ports, services
from services.local.errors import CommandError, Interrupted
from services.local.interrupts import Interrupts
from services.local.processes import Children
from services.local.summary import criterion_keys
from services.local.table import QUALITY, duration, interval, plain_table, suite_titles


@dataclass(frozen=True)
class What:
    """What to measure, and with what. `teacher_url` none: a teacher is started for as long as it takes."""

    checkpoint: Path
    eval_data: str | None
    teacher: str
    teacher_url: str | None
    suites: tuple[str, ...] | None
    stories: int | None
    output: Path | None
    again: bool = False


def chosen_suites(given: str | None) -> tuple[str, ...] | None:
    """Suites by name, with commas between; their short names become the full ones.

    Raises:
        CommandError: one is unknown, or none is named.
    """
    from services.evaluator.settings import known_suites

    if given is None:
        return None
    try:
        return known_suites(tuple(name.strip() for name in given.split(",") if name.strip()))
    except ValueError as error:
        raise CommandError(f"--suites {given}: {error}") from error


def evaluate(what: What, console: Console) -> tuple[EvaluationReport, Path]:
    """Measure the checkpoint; the report, and the folder that it was written into. `console` shows progress.

    Raises:
        CommandError: the checkpoint or the data cannot be used, or the teacher does not start.
        Interrupted: a signal came; nothing was written.
    """
    if not what.checkpoint.expanduser().is_dir():
        raise CommandError(
            f"{what.checkpoint} is not a folder; give a checkpoint such as runs/<run>/checkpoints/chck_1M"
        )
    with Interrupts() as interrupts:
        if what.suites is not None and QUALITY not in what.suites:
            return _measure(what, None, console, interrupts)
        if what.teacher_url is not None:
            if not (answer := http.readiness(what.teacher_url)).ready:
                raise CommandError(f"the teacher at {what.teacher_url} is not ready: {answer.reason}", exit_code=1)
            return _measure(what, what.teacher_url, console, interrupts)
        with tempfile.TemporaryDirectory(prefix="fabula-") as folder, Children() as children:
            port = ports.any_free()
            log = Path(folder) / "teacher.log"
            worker = services.worker_name("teacher", Path(folder))
            service = services.start_teacher(children, what.teacher, port, None, log, worker)
            with console.status(f"Starting the teacher {what.teacher} ..."):
                services.wait_ready(children, service, interrupts)
            return _measure(what, service.url, console, interrupts)


def _measure(
    what: What, teacher_url: str | None, console: Console, interrupts: Interrupts
) -> tuple[EvaluationReport, Path]:
    # Imported here: these bring torch.
    from services.evaluator.errors import AbandonedError, EvaluatorError
    from services.evaluator.evaluation import evaluate_checkpoint
    from services.evaluator.progress import Progress
    from services.evaluator.request import EvaluationRequest
    from services.evaluator.settings import PREFIX, EvaluatorSettings, explain_settings

    request = EvaluationRequest.from_folder(what.checkpoint.expanduser(), what.output)
    request = request.model_copy(update={"again": what.again})
    given: dict[str, Any] = {"teacher_url": teacher_url, "eval_data": what.eval_data, "stories": what.stories}
    if what.suites is not None:
        given["suites"] = what.suites
    if f"{PREFIX}TORCH_THREADS" not in os.environ:
        given["torch_threads"] = os.cpu_count()  # no trainer works beside us
    try:
        settings = EvaluatorSettings(**given)
    except ValidationError as error:
        raise CommandError(explain_settings(error)) from error
    with console.status("Loading ...") as status:

        def watch(progress: Progress) -> None:
            if interrupts.stopping:
                raise AbandonedError
            status.update(f"{progress.suite}: {progress.done:,} of {progress.total:,}")

        def finished(result: SuiteResult) -> None:
            title, scale, digits = suite_titles(result.suite)
            value = (
                interval(result.measures[result.headline or ""], scale, digits) if result.headline else result.status
            )
            console.print(f"{title.strip()}: {value}, {duration(result.seconds)}", style="dim", highlight=False)

        try:
            return evaluate_checkpoint(request, settings, watch, finished), request.output
        except AbandonedError:
            console.print("Stopped. Finished suites are kept: the same command goes on.")
            raise Interrupted from None
        except EvaluatorError as error:
            raise CommandError(str(error)) from error


def show(report: EvaluationReport, output: Path, console: Console) -> None:
    """Print one line a suite, and the criteria of the stories' scores."""
    table = plain_table(f"{report.checkpoint}", "", "value [95 % interval]", "items", "time")
    reasons = []
    for result in report.suites:
        title, scale, digits = suite_titles(result.suite)
        if result.status != "ok":
            table.add_row(title, result.status, "", duration(result.seconds))
            reasons.append(Text(f"{title.strip()} {result.status}: {result.reason}", "yellow"))
            continue
        _add_measures(table, result, title, scale, digits)
    console.print(table)
    for result in report.suites:
        if result.status == "ok":
            console.print(f"{suite_titles(result.suite)[0].strip(' %')}: {result.source}", style="dim", highlight=False)
    for reason in reasons:
        console.print(reason)
    console.print(f"Report: {output / 'report.json'}", highlight=False, soft_wrap=True)


def _add_measures(table: Table, result: SuiteResult, title: str, scale: float, digits: int) -> None:
    head = result.measures[result.headline or ""]
    table.add_row(title, interval(head, scale, digits), f"{head.n:,}", duration(result.seconds))
    for key, name in criterion_keys(result).items():
        part = result.measures[key]
        table.add_row(f"  {name}", interval(part, scale, digits), f"{part.n:,}", "")
