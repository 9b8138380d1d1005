"""Interaction: the student writes, a teacher judges, an algorithm learns. The loop of arXiv 2509.15714.

What we do differently from the paper's code: the budget is asked before a batch is written, a verdict that is missing
or failed is never a number, an error leaves nothing half-done, and a run that was stopped goes on exactly where it was.

Of several processes (`ranks`) each writes, scores and learns its share of a batch. All hold the same state; the main
one alone collects verdicts, asks the guards, records and saves.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from fabula_proto import Alarm, ScoredBatch, StepMetrics
from services.student_trainer import checkpoints, interaction_state
from services.student_trainer.algorithms.experience import Experience
from services.student_trainer.algorithms.updating import UpdateStats
from services.student_trainer.config import ConfigError
from services.student_trainer.guards.guards import Guards, GuardStopError, wait_while_paused
from services.student_trainer.in_flight import Writer, WrittenStep
from services.student_trainer.interaction_state import InteractionState
from services.student_trainer.keeping import Keeper
from services.student_trainer.learner import Learner
from services.student_trainer.next_word import NextWord
from services.student_trainer.ranks import Beat, Ranks
from services.student_trainer.records import StoryRow
from services.student_trainer.rewards import UnknownCriterionError, usable_reward
from services.student_trainer.run_folder import RunFolder
from services.student_trainer.settings import RunSettings
from services.student_trainer.step_records import StepTimes, step_metrics, story_rows
from services.student_trainer.story_queue import Collected, NoVerdictsError, Verdicts


class TeacherFailedError(RuntimeError):
    """Too many stories of a batch came back without a verdict. The state before that batch was saved."""


class StopRequestedError(Exception):
    """Someone asked the run to stop; its state was saved."""


_RAISED_IN_ALL = (StopRequestedError, TeacherFailedError, NoVerdictsError, GuardStopError, UnknownCriterionError)


@dataclass(frozen=True)
class Watcher:
    """Who follows a run: called after each update, after each kept checkpoint, and asked whether to stop.

    `say` is given what a person should know besides: alarms, and that the run waits for somebody.
    """

    on_step: Callable[[StepMetrics, list[StoryRow]], None]
    on_checkpoint: Callable[[Path], None]
    should_stop: Callable[[], bool]
    say: Callable[[str], None] = lambda _: None


def interact(
    folder: RunFolder,
    settings: RunSettings,
    start: Path,
    queue: Verdicts,
    watcher: Watcher,
    ranks: Ranks | None = None,
) -> Path:
    """Learn from a teacher until the word budget is spent, from `start` or from where an earlier call got to.

    Returns:
        The final checkpoint.

    Raises:
        StopRequestedError: the watcher asked for it; the state is saved.
        TeacherFailedError: past `max_failed_share` of a batch had no usable verdict; the state is saved.
        GuardStopError: a guard whose action is `stop` raised an alarm; the state is saved.
        NoVerdictsError: no teacher answered in `verdict_timeout_s`; the state is saved.
        UnknownCriterionError: `reward.weights` does not fit the teacher's rubric; the state is saved.
        NotFiniteError: the update blew up; the state before it stays in the last checkpoint.
        ConfigError: there are more processes than chunks to write, or the budget pays for no update at all.
        RankLostError: another process died or hangs; where it can, the main one has saved the state.
    """
    ranks = ranks or Ranks()
    final = folder.checkpoints / checkpoints.interact_name(start.name, settings.interact.word_budget)
    if ranks.on_main(lambda _: checkpoints.is_complete(final)):
        return final
    with ranks.exchanging():
        state = interaction_state.begin_or_resume(folder, settings, start, ranks)
        loop = _Loop(folder, settings, state, queue, watcher)
        try:
            loop.check_budget()
            loop.send_again()
            while loop.write_ahead():
                loop.step()
        except _RAISED_IN_ALL:
            loop.save_if_consistent()
            raise
        except RuntimeError:
            loop.save_without_the_others()
            raise
        loop.finish(final)
    return final


class _Loop:
    """One run's interaction; `consistent` says that state and records agree, so that the state may be saved."""

    def __init__(
        self, folder: RunFolder, settings: RunSettings, state: InteractionState, queue: Verdicts, watcher: Watcher
    ) -> None:
        self.folder = folder
        self.settings = settings
        self.state = state
        self.ranks = state.policy.ranks
        self.queue = queue
        self.watcher = watcher
        self.writer = Writer(folder.run, settings.seed, settings.interact, state.tokenizer, self.ranks)
        next_word = NextWord.open(folder, settings, state.tokenizer, self.ranks)
        self.learner = Learner(settings, state, next_word)
        self.guards = Guards(settings.interact.guards, folder, settings.seed, queue)
        self.keeper = Keeper(folder, settings, state, watcher.on_checkpoint)
        self.consistent = True
        self.write_s = 0.0

    def check_budget(self) -> None:
        """A run without a single update would pass for one that gained nothing."""
        state, options = self.state, self.settings.interact
        if state.step == 0 and not state.in_flight and not self.learner.affordable(1):
            raise ConfigError(
                f"interact.word_budget {options.word_budget} pays for no update: one costs {self.learner.cost(1)} "
                f"words of the prompt, of the teacher ({options.batch_size} stories) and of interact.mixed; raise the "
                "budget, or lower batch_size or mixed.batch_size"
            )

    def send_again(self) -> None:
        """Ask for the verdicts of what was in flight when the state was saved; those that have come stay."""
        self.ranks.on_main(self._send_again)

    def _send_again(self, beat: Beat) -> None:
        for written in self.state.in_flight:
            for batch in written.batches:
                self.queue.send(batch)
            self.guards.ask(written.step, written.stories)
            beat()

    def write_ahead(self) -> bool:
        """Write `lag` steps ahead of the one to learn from next, as far as the budget goes; whether there is one.

        Step t + lag is written when t updates are done, at the start all of them by the policy of update 0.
        """
        self._wait_while_paused()
        started = time.perf_counter()
        state = self.state
        while len(state.in_flight) <= self.settings.interact.lag and self.learner.affordable(len(state.in_flight) + 1):
            self._stop_if_asked()
            step = state.step + len(state.in_flight)
            with state.policy.whole() as model:
                written = self.writer.write(model, step, state.step, self.queue.send)
            state.in_flight.append(written)
            self._ask_guards(written)
        self.write_s = time.perf_counter() - started
        return bool(state.in_flight)

    def _wait_while_paused(self) -> None:
        paused, since_s = self.folder.paused, time.monotonic()

        def wait(beat: Beat) -> None:
            wait_while_paused(paused, self._keep_waiting(beat), self.watcher.say)
            self.queue.paused(since_s, time.monotonic())

        if self.ranks.on_main(lambda _: paused.exists()):
            self.keeper.save_resume_point()
            self.ranks.on_main(wait)

    def _ask_guards(self, written: WrittenStep) -> None:
        self.ranks.on_main(lambda _: self.guards.ask(written.step, written.stories))

    def step(self) -> None:
        """Score, reward, advantage, update, record, save; what is learned from has been written."""
        started = time.perf_counter()
        self._stop_if_asked()
        written = self.state.in_flight[0]
        collected = self.ranks.on_main(lambda beat: self._collect(written, beat))
        judged = time.perf_counter()
        verdicts = [verdict for batch in collected.scored for verdict in batch.verdicts]
        experience, rewards_B = self.learner.experience(written.rollout, verdicts)
        self.consistent = False
        stats = self.learner.update(experience, written.rollout)
        learned = time.perf_counter()
        times = StepTimes(self.write_s, judged - started, collected.wait_for_student_s, learned - judged)
        self._finish_step(written, collected, rewards_B, experience, stats, times)
        if not self.ranks.main:  # it may have seen verdicts when it sent
            self.queue.forget(written.step)

    def _collect(self, written: WrittenStep, beat: Beat) -> Collected:
        """The verdicts, enough of them, and the guards' own."""
        timeout_s, keep_waiting = self.settings.interact.verdict_timeout_s, self._keep_waiting(beat)
        collected = self.queue.collect(written.batches, timeout_s, keep_waiting)
        self.guards.collect(written.step, timeout_s, keep_waiting)
        self._check_enough_verdicts(collected.scored)
        return collected

    def _finish_step(
        self,
        written: WrittenStep,
        collected: Collected,
        rewards_B: torch.Tensor,
        experience: Experience,
        stats: UpdateStats,
        times: StepTimes,
    ) -> None:
        """Record, save, say."""
        rows = story_rows(written, collected.scored, rewards_B, experience)
        metrics = step_metrics(self.folder.run, self.state, written, rows, experience, stats, times)

        def record(_: Beat) -> tuple[StepMetrics, list[Alarm]]:
            watched, alarms = self.guards.after_update(metrics, rows)
            self.keeper.record(watched, rows, alarms)
            self.queue.forget(watched.step)
            return watched, alarms

        def say(_: Beat) -> None:
            self.watcher.on_step(watched, rows)
            for alarm in alarms:
                self.watcher.say(f"  ALARM {alarm.guard}: {alarm.message}")
            self.guards.stop_if_asked(alarms)

        watched, alarms = self.ranks.on_main(record)
        self.consistent = True
        self.keeper.save_when_due()
        self.ranks.on_main(say)

    def _check_enough_verdicts(self, scored: list[ScoredBatch]) -> None:
        verdicts = [verdict for batch in scored for verdict in batch.verdicts]
        failed = [verdict for verdict in verdicts if usable_reward(verdict) is None]
        limit = self.settings.interact.max_failed_share
        if len(failed) > limit * len(verdicts) or len(failed) == len(verdicts):
            self.queue.discard()  # or the next start would find these very failures instead of asking again
            raise TeacherFailedError(
                f"{len(failed)} of {len(verdicts)} stories of step {self.state.step} have no verdict "
                f"(interact.max_failed_share is {limit:g}); the first says: {failed[0].reason}. "
                "The state before this step is saved; mend the teacher and start the run again."
            )

    def finish(self, final: Path) -> None:
        """Keep the last checkpoint."""
        ledger = self.state.ledger
        if self.ranks.main:
            self.watcher.say(
                f"  ends after {self.state.step} updates: the next one costs {self.learner.cost(1):,} words, "
                f"{ledger.budget - ledger.spent:,} of {ledger.budget:,} are left"
            )
        self.keeper.keep(final)

    def save_if_consistent(self) -> None:
        """Save the state, unless an update or its records are half done."""
        if self.consistent:
            self.keeper.save_resume_point()

    def save_without_the_others(self) -> None:
        """The same in the main process alone, where it holds the whole state."""
        if self.ranks.main and self.consistent and not self.state.policy.divided:
            with self.state.whole() as whole:
                interaction_state.save_resume_point(self.folder, self.settings, self.state, whole)

    def _stop_if_asked(self) -> None:
        if self.ranks.any(self.watcher.should_stop()):
            raise StopRequestedError

    def _keep_waiting(self, beat: Beat) -> Callable[[], None]:
        """What the main process does while it waits: say to the others that it is alive, stop if it is asked to."""

        def look() -> None:
            beat()
            if self.watcher.should_stop():
                raise StopRequestedError

        return look
