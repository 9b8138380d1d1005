"""Following an interaction: what a watcher saw, and stopping where a test wants it."""

from pathlib import Path

from fabula_proto import StepMetrics
from fabula_proto.streams import Streams
from services.student_trainer.interaction import Watcher, interact
from services.student_trainer.ranks import Ranks
from services.student_trainer.records import StoryRow
from services.student_trainer.run_folder import RunFolder
from services.student_trainer.settings import RunSettings
from services.student_trainer.story_queue import StoryQueue


class Following:
    """A watcher that remembers what it saw, and asks to stop at the n-th question or after so many updates."""

    def __init__(self, stop_at_question: int | None = None, stop_after_updates: int | None = None) -> None:
        self._stop_after_updates = stop_after_updates
        self.lines: list[StepMetrics] = []
        self.kept: list[str] = []
        self._questions_left = stop_at_question
        self.watcher = Watcher(self._step, lambda path: self.kept.append(path.name), self._should_stop)

    def _step(self, line: StepMetrics, rows: list[StoryRow]) -> None:
        self.lines.append(line)

    def _should_stop(self) -> bool:
        if self._stop_after_updates is not None:
            return len(self.lines) >= self._stop_after_updates
        if self._questions_left is None:
            return False
        self._questions_left -= 1
        return self._questions_left < 0


def go(
    redis_url: str,
    folder: RunFolder,
    start: Path,
    settings: RunSettings,
    following: Following,
    ranks: Ranks | None = None,
) -> Path:
    with Streams(redis_url) as streams:
        return interact(folder, settings, start, StoryQueue(streams, folder.run), following.watcher, ranks)
