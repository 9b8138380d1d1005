"""What a run shows while it works: one line an interval or update, and now and then a story."""

import sys
import time
from typing import TextIO

from fabula_proto import PretrainMetrics, StepMetrics
from services.student_trainer.records import StoryRow
from services.student_trainer.settings import RunSettings

STORY_EVERY_S = 20.0


class Progress:
    """Prints progress as plain lines; on a terminal pretraining rewrites its line in place."""

    def __init__(self, settings: RunSettings, *, tty: bool, out: TextIO = sys.stdout) -> None:
        self._settings = settings
        self._tty = tty
        self._out = out
        self._story_shown_at = float("-inf")
        self._line_open = False

    def say(self, text: str) -> None:
        """One line of its own."""
        self._close_line()
        print(text, file=self._out, flush=True)

    def pretraining(self, line: PretrainMetrics) -> None:
        """Words seen, loss and speed, with the time that is left."""
        budget = self._settings.pretrain.word_budget
        words_per_s = line.tokens_per_s * line.words_seen / max(1, line.tokens_seen)
        left_s = (budget - line.words_seen) / words_per_s if words_per_s > 0 else float("inf")
        text = (
            f"  read {line.words_seen:>9,} of {budget:,} words   loss {line.loss:5.3f}   "
            f"{line.tokens_per_s:7,.0f} tokens/s   {max(0.0, left_s):4.0f} s left"
        )
        if self._tty:
            print(f"\r{text}", end="", file=self._out, flush=True)
            self._line_open = True
        else:
            print(text, file=self._out, flush=True)

    def update(self, line: StepMetrics, rows: list[StoryRow]) -> None:
        """Score, criteria, KL and words of an update; a story every few seconds."""
        criteria = "  ".join(f"{name} {mean:.2f}" for name, mean in line.criteria_mean.items())
        budget = self._settings.interact.word_budget
        self.say(
            f"  update {line.step:>3}   score {line.score_mean:5.2f}   {criteria}   "
            f"words {line.story_words_mean:3.0f}   KL {line.kl_mean:5.2f}   "
            f"spent {line.words_spent:,} of {budget:,} words   {line.seconds:.1f} s"
        )
        if line.verdicts_failed:
            self.say(f"    {line.verdicts_failed} of {line.stories} stories had no verdict and were left out")
        if time.monotonic() - self._story_shown_at > STORY_EVERY_S:
            self._story_shown_at = time.monotonic()
            self.say(_story(rows))

    def _close_line(self) -> None:
        if self._line_open:
            print(file=self._out)
            self._line_open = False


def _story(rows: list[StoryRow]) -> str:
    """The batch's story of median score: neither the best nor the worst."""
    judged = sorted((row for row in rows if row.verdict.total is not None), key=lambda row: row.verdict.total or 0.0)
    if not judged:
        return "    (no story with a verdict)"
    row = judged[len(judged) // 2]
    text = " ".join(row.story.text.split())
    return f"    median story, {row.verdict.total:.1f} points: ... {text}"
