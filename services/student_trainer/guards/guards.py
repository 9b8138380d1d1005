"""The guards of one run: they ask teachers on the side, look at every update and say what is wrong with it.

What they remember stands in metrics.jsonl (`StepMetrics.watch`), nowhere else: a run that goes on reads it back.
"""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import pstdev

from pydantic import ValidationError

from fabula_proto import Alarm, HeldOutCheck, ScoredBatch, StepMetrics, Story, StoryBatch, Watch
from services.student_trainer.files import write_atomically
from services.student_trainer.guard_settings import GuardsSettings
from services.student_trainer.guards import held_out
from services.student_trainer.guards.canaries import judged, load_canaries
from services.student_trainer.guards.measures import distinct_share, line, repetition
from services.student_trainer.guards.readings import Seen
from services.student_trainer.guards.rules import raised
from services.student_trainer.records import StoryRow
from services.student_trainer.rewards import usable_reward
from services.student_trainer.run_folder import RunFolder
from services.student_trainer.story_queue import Verdicts

PAUSE_LOOK_S = 0.5


class GuardStopError(RuntimeError):
    """A guard whose action is `stop` raised an alarm; the state after that update is saved."""


class Guards:
    """Watches one run. Made when the records stand where the run goes on; where several ranks train, on the first one.

    An update's calls, in order: `ask` when its stories are written, `collect` before anything is learned from them,
    `after_update`, and when that is recorded, `stop_if_asked`.
    """

    def __init__(self, settings: GuardsSettings, folder: RunFolder, seed: int, verdicts: Verdicts) -> None:
        self._settings = settings
        self._folder = folder
        self._seed = seed
        self._verdicts = verdicts
        self._history = read_history(folder.metrics)
        self._asked: dict[int, dict[str, StoryBatch]] = {}
        self._answers: dict[str, ScoredBatch] = {}

    def ask(self, step: int, stories: Sequence[Story]) -> None:
        """Send what else is to be judged at this update: a sample for the held-out teacher, the canaries."""
        checks, canaries = self._settings.held_out, self._settings.canaries
        asked: dict[str, StoryBatch] = {}
        if checks.teacher is not None and step % checks.every == 0:
            size = (
                checks.stories if step else len(stories)
            )  # what all others are compared with is the first batch whole
            sampled = [stories[i] for i in held_out.sample(self._seed, step, len(stories), size)]
            asked["held_out"] = self._batch(step, sampled, teacher=checks.teacher)
        if canaries.every is not None and step % canaries.every == 0:
            # Fresh: a remembered verdict would hide that the model behind an unchanged name is another one.
            asked["canaries"] = self._batch(step, load_canaries(), fresh=True)
        for batch in asked.values():
            self._verdicts.send(batch)
        self._asked[step] = asked

    def collect(self, step: int, timeout_s: float, keep_waiting: Callable[[], None]) -> None:
        """Wait for what was asked at this update.

        Raises:
            NoVerdictsError: no verdict came for `timeout_s`.
        """
        asked = self._asked.pop(step, {})
        self._answers = {}
        if asked:
            collected = self._verdicts.collect(list(asked.values()), timeout_s, keep_waiting)
            self._answers = dict(zip(asked, collected.scored, strict=True))

    def after_update(self, metrics: StepMetrics, rows: Sequence[StoryRow]) -> tuple[StepMetrics, list[Alarm]]:
        """The update's line with what was watched, and the alarms to record after it.

        Where an alarm pauses the run, the file PAUSED is there when this returns.
        """
        watch = self._watch(rows)
        self._history.append(Seen.of(metrics, watch))
        alarms = raised(self._folder.run, self._history, self._settings)
        if pausing := [alarm for alarm in alarms if alarm.action == "pause"]:
            lines = [f"Paused after update {alarm.step}, guard {alarm.guard}: {alarm.message}" for alarm in pausing]
            write_atomically(self._folder.paused, "\n".join([*lines, "Remove this file, and the run goes on.", ""]))
        return metrics.model_copy(update={"watch": watch}), alarms

    def stop_if_asked(self, alarms: Sequence[Alarm]) -> None:
        """Raise GuardStopError where one of the alarms stops the run. The same alarm does not come back at once."""
        stopping = [alarm for alarm in alarms if alarm.action == "stop"]
        if stopping:
            reasons = "; ".join(f"guard {alarm.guard}: {alarm.message}" for alarm in stopping)
            raise GuardStopError(
                f"stopped after update {stopping[0].step}, {reasons}. The state is saved; start the run again to go on "
                "in spite of it, or change a setting first"
            )

    def _batch(
        self, step: int, stories: Sequence[Story], *, teacher: str | None = None, fresh: bool = False
    ) -> StoryBatch:
        return StoryBatch(
            run=self._folder.run,
            step=step,
            chunk=0,
            chunks=1,
            policy_version=step,
            stories=tuple(stories),
            teacher=teacher,
            fresh=fresh,
        )

    def _watch(self, rows: Sequence[StoryRow]) -> Watch:
        usable = [(row, reward) for row in rows if (reward := usable_reward(row.verdict)) is not None]
        levels = [row.verdict.criteria for row, _ in usable if row.verdict.criteria is not None]
        names = [name for name in levels[0] if all(name in criteria for criteria in levels)] if levels else []
        teachers = {row.batch.teacher.to_json(): row.batch.teacher for row in rows}
        length = line([row.words for row, _ in usable], [reward for _, reward in usable])
        canaries = self._answers.get("canaries")
        return Watch(
            repetition=repetition([row.story.text for row in rows]),
            distinct_bigrams=distinct_share([row.story.text for row in rows]),
            length_slope=length.slope,
            length_correlation=length.correlation,
            criteria_spread={name: pstdev(criteria[name].mean for criteria in levels) for name in names},
            teachers=tuple(teachers[key] for key in sorted(teachers)),
            held_out=self._held_out_check(rows),
            canaries=None if canaries is None else judged(canaries),
        )

    def _held_out_check(self, rows: Sequence[StoryRow]) -> HeldOutCheck | None:
        answer = self._answers.get("held_out")
        if answer is None:
            return None
        training = {row.story.id: row.verdict for row in rows}
        return held_out.compare([training[verdict.story_id] for verdict in answer.verdicts], answer)


def read_history(metrics: Path) -> list[Seen]:
    """What was seen so far, from metrics.jsonl. Updates that were recorded before there were guards are left out."""
    if not metrics.exists():
        return []
    history = []
    for text in metrics.read_text(encoding="utf-8").splitlines():
        fields = json.loads(text)
        if fields.get("phase") == "interact" and fields.get("watch") is not None:
            try:
                history.append(Seen.model_validate_json(text))
            except ValidationError:
                continue  # of another version: what guards compare must have been measured in one way
    return history


def wait_while_paused(paused: Path, keep_waiting: Callable[[], None], say: Callable[[str], None]) -> None:
    """Return when the file `paused` is not there; the state has been saved. `keep_waiting` may raise."""
    say(f"  paused, the state is saved; remove {paused} to go on")
    while paused.exists():
        keep_waiting()
        time.sleep(PAUSE_LOOK_S)
