"""What is kept of an interaction: records of each update, and its state where that is due."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from fabula_proto import Alarm, StepMetrics
from services.student_trainer import checkpoints, interaction_state
from services.student_trainer.interaction_state import InteractionState
from services.student_trainer.ranks import Beat
from services.student_trainer.records import StoryRow, append_metrics, write_stories_part
from services.student_trainer.run_folder import RunFolder
from services.student_trainer.settings import RunSettings


class Keeper:
    """Writes to one run's folder. `on_checkpoint` hears of each checkpoint that is kept.

    The main process alone records and writes; where the state is saved, all come together.
    """

    def __init__(
        self, folder: RunFolder, settings: RunSettings, state: InteractionState, on_checkpoint: Callable[[Path], None]
    ) -> None:
        self._folder = folder
        self._settings = settings
        self._state = state
        self._on_checkpoint = on_checkpoint
        self._ranks = state.policy.ranks
        self._saved_at = time.monotonic()

    def record(self, metrics: StepMetrics, rows: Sequence[StoryRow], alarms: Sequence[Alarm]) -> None:
        """The update's stories, its line and its alarms', and the account."""
        folder = self._folder
        criteria = list(metrics.criteria_mean)
        write_stories_part(folder.stories, folder.run, metrics.step, metrics.policy_version, criteria, rows)
        for line in (metrics, *alarms):
            append_metrics(folder.metrics, line)
        self._state.ledger.write(folder.ledger)

    def save_when_due(self) -> None:
        """Keep a checkpoint where the words spent reach a milestone; between them, a resume point now and then."""
        options, state = self._settings.interact, self._state
        milestone = state.ledger.spent // options.checkpoint_every_words * options.checkpoint_every_words
        if state.milestone < milestone < options.word_budget:
            state.milestone = milestone
            self.keep(self._folder.checkpoints / checkpoints.interact_name(state.start.name, milestone))
        elif self._ranks.any(time.monotonic() - self._saved_at > options.save_every_s):
            self.save_resume_point()

    def keep(self, path: Path) -> None:
        """Save the state as a checkpoint."""
        with self._state.whole() as whole:

            def write(_: Beat) -> None:
                interaction_state.save(path, self._folder, self._settings, self._state, whole)
                self._on_checkpoint(path)

            self._ranks.on_main(write)
        self._saved_at = time.monotonic()

    def save_resume_point(self) -> None:
        """Save the state where the next start finds it."""
        with self._state.whole() as whole:
            self._ranks.on_main(
                lambda _: interaction_state.save_resume_point(self._folder, self._settings, self._state, whole)
            )
        self._saved_at = time.monotonic()
