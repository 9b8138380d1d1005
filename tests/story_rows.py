"""Judged stories in a run's table, without a run."""

from pathlib import Path

from fabula_proto import ScoredBatch, Story
from services.student_trainer.records import StoryRow, write_stories_part
from services.teacher.rubric import load_rubric
from tests.trainer_helpers import IDENTITY, TEXT, vowel_verdict


def write_judged_stories(folder: Path, steps: int, stories: int) -> None:
    """`stories` stories for each of the updates 0 .. steps - 1, judged by the vowels."""
    criteria = [criterion.name for criterion in load_rubric().criteria]
    for step in range(steps):
        told = [Story(id=f"{step}-{index}", prompt="Once", text=f"{TEXT[index:]} {step}") for index in range(stories)]
        verdicts = [vowel_verdict(story) for story in told]
        batch = ScoredBatch(
            run="r", step=step, chunk=0, digest="d", verdicts=tuple(verdicts), teacher=IDENTITY, worker="w", seconds=0
        )
        rows = [
            StoryRow(story, index, 9, 9, True, 0.0, verdict.reward, verdict, batch)
            for index, (story, verdict) in enumerate(zip(told, verdicts, strict=True))
        ]
        write_stories_part(folder, "r", step, step, criteria, rows)
