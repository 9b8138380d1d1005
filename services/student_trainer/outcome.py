"""What a run came to, by the evaluator's reports on the checkpoints before and after interaction."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from fabula_proto import EvaluationReport, SuiteResult
from services.student_trainer import checkpoints, config
from services.student_trainer.folder_lock import FolderLock
from services.student_trainer.interaction import StopRequestedError
from services.student_trainer.run_folder import RunFolder

LOOK_EVERY_S = 1.0
SAY_EVERY_S = 60.0


def tell_outcome(folder: RunFolder, stop: threading.Event, say: Callable[[str], None]) -> None:
    """Wait for both reports, however long they take, and say what they hold, a line a suite.

    The folder is ours meanwhile, which is what a container's health check looks at.

    Raises:
        StopRequestedError: `stop` was set.
        config.ConfigError: run.yaml cannot be read.
        FolderInUseError: another process works in the folder.
    """
    settings = config.load(folder.config)
    start = Path(settings.interact.start or checkpoints.pretrain_name(settings.pretrain.word_budget)).name
    names = (start, checkpoints.interact_name(start, settings.interact.word_budget))
    with FolderLock(folder.path):
        _wait(folder, names, stop, say)
    before, after = (EvaluationReport.from_json(folder.report(name).read_bytes()) for name in names)
    say(f"Measured before interaction ({names[0]}) and after it ({names[1]}), with 95 % intervals:")
    for line in _lines(before, after):
        say(line)


def _wait(folder: RunFolder, names: tuple[str, ...], stop: threading.Event, say: Callable[[str], None]) -> None:
    said_at = time.monotonic() - SAY_EVERY_S
    while missing := [name for name in names if not folder.report(name).exists()]:
        if time.monotonic() - said_at >= SAY_EVERY_S:
            said_at = time.monotonic()
            say(f"Waiting for the evaluator's report on {' and '.join(missing)}")
        if stop.wait(LOOK_EVERY_S):
            raise StopRequestedError


def _lines(before: EvaluationReport, after: EvaluationReport) -> Iterator[str]:
    first = {result.suite: result for result in before.suites}
    for result in after.suites:
        then = _headline(first.get(result.suite))
        yield f"  {result.suite:<18} {then:>24}  ->  {_headline(result):<24} {result.unit or ''}".rstrip()


def _headline(result: SuiteResult | None) -> str:
    if result is None:
        return "not measured"
    if result.status != "ok":
        return result.status
    measure = result.measures[result.headline or ""]
    return f"{measure.value:.3f} [{measure.low:.3f}, {measure.high:.3f}]"
