"""Canaries: stories that never change, so that a change of their scores is a change of the teacher."""

from collections.abc import Mapping
from importlib import resources
from statistics import fmean

import yaml

from fabula_proto import CanaryCheck, ScoredBatch, Story
from services.student_trainer.rewards import usable_reward

PREFIX = "canary-"


def load_canaries() -> tuple[Story, ...]:
    """The canaries that ship with the trainer."""
    text = resources.files(__package__).joinpath("canaries.yaml").read_text(encoding="utf-8")
    stories: dict[str, str] = yaml.safe_load(text)
    return tuple(Story(id=f"{PREFIX}{name}", text=story.strip()) for name, story in stories.items())


def judged(batch: ScoredBatch) -> CanaryCheck:
    """What a teacher said of the canaries."""
    rewards = {verdict.story_id.removeprefix(PREFIX): usable_reward(verdict) for verdict in batch.verdicts}
    return CanaryCheck(teacher=batch.teacher, rewards=rewards)


def drift(reference: Mapping[str, float | None], now: Mapping[str, float | None]) -> float | None:
    """Mean absolute change over the canaries that have a reward in both; none where no canary has."""
    changes = [
        abs(reward - before)
        for name, reward in now.items()
        if reward is not None and (before := reference.get(name)) is not None
    ]
    return fmean(changes) if changes else None
