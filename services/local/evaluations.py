"""Waits until the evaluator has reported on checkpoints; asks again where the question was lost."""

import json
import time
from collections.abc import Sequence
from pathlib import Path

from fabula_proto import CHECKPOINTS_STREAM, EVALUATORS_GROUP, CheckpointReady
from fabula_proto.streams import Streams, TransportError
from services.local.errors import CommandError
from services.local.interrupts import Interrupts
from services.local.processes import Children
from services.local.summary import report_path
from services.student_trainer import config

LOOK_EVERY_S = 1.0
PATIENCE_S = 10.0
QUIET_S = 3.0  # the evaluator writes the report before it settles the message; longer means that it is not coming


class ReportWait:
    """Looks for the reports of `checkpoints` of the run in `folder`, and at the queue they come through."""

    def __init__(self, folder: Path, checkpoints: Sequence[str], redis_url: str) -> None:
        self._folder = folder
        self._checkpoints = tuple(checkpoints)
        self._streams = Streams(redis_url, patience_s=PATIENCE_S)
        self._quiet_since: float | None = None
        self._asked_again = False

    @property
    def missing(self) -> tuple[str, ...]:
        """Checkpoints without a report."""
        return tuple(name for name in self._checkpoints if not report_path(self._folder, name).exists())

    def wait(self, children: Children, interrupts: Interrupts) -> None:
        """Return once every report is there.

        Raises:
            CommandError: the evaluator gave a checkpoint up, or the queue is away.
            ChildFailedError: a service stopped.
            Interrupted: a signal has arrived.
        """
        try:
            with self._streams:
                while self.missing:
                    interrupts.sleep(LOOK_EVERY_S)
                    children.check()
                    self._look_at_queue()
        except TransportError as error:
            raise CommandError(f"the evaluations cannot be followed: {error}", exit_code=1) from error

    def _look_at_queue(self) -> None:
        now = time.monotonic()
        if self._streams.depth(CHECKPOINTS_STREAM, EVALUATORS_GROUP).total or not self.missing:
            self._quiet_since = None
        elif self._quiet_since is None:
            self._quiet_since = now
        elif now - self._quiet_since > QUIET_S:
            if self._asked_again:
                raise self._given_up()
            self._ask_again()
            self._quiet_since = None

    def _ask_again(self) -> None:
        """Nothing is queued and reports are missing: the queue was lost, or an evaluation failed in an earlier `up`."""
        for name in self.missing:
            self._streams.publish(CHECKPOINTS_STREAM, announcement(self._folder, name))
        self._asked_again = True

    def _given_up(self) -> CommandError:
        keys = {f"{self._folder.name}/{name}" for name in self.missing}
        reasons = {}
        for letter in self._streams.dead_letters(CHECKPOINTS_STREAM, count=1000):
            try:
                key = CheckpointReady.from_json(letter.body).key
            except ValueError:
                continue
            if key in keys:
                reasons[key] = letter.error
        why = "; ".join(f"{key}: {error}" for key, error in reasons.items()) or "it gave no reason"
        return CommandError(
            f"the evaluator made no report on {', '.join(self.missing)}: {why}. See "
            f"{self._folder / 'logs' / 'evaluator.log'}; the same command tries again",
            exit_code=1,
        )


def announcement(folder: Path, checkpoint: str) -> CheckpointReady:
    """What the evaluator is told of a checkpoint, by its manifest."""
    path = folder / "checkpoints" / checkpoint
    start = config.load(folder / "run.yaml").interact.start
    if not path.exists() and start and Path(start).name == checkpoint:
        path = Path(start)  # interaction may start from another run's checkpoint
    facts = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
    return CheckpointReady(
        run=folder.name,
        checkpoint=checkpoint,
        path=str(path.resolve()),
        stage=facts["stage"],
        pretraining_words=facts["pretraining_words"],
        interaction_words=facts["interaction_words"],
    )
