"""What attacks are made of: base stories, word lists, and the rubric of the teacher that is attacked."""

import re
from collections.abc import Callable, Sequence
from functools import cache
from importlib import resources
from random import Random
from typing import Any, NamedTuple

import yaml

from services.teacher.rubric import Criterion

GRADES = ("good", "plain", "weak")
_SENTENCE = re.compile(r'(?<=[.!?"])\s+')


class BaseStory(NamedTuple):
    """One of the stories that attacks change, with our own grade for it."""

    grade: str
    text: str


class Scene(NamedTuple):
    """What an attack may use: randomness of its own, and the rubric that the teacher judges by."""

    rng: Random
    criteria: Sequence[Criterion]

    @property
    def top(self) -> int:
        """The highest level of each criterion."""
        return len(self.criteria[0].levels) - 1

    @property
    def answer(self) -> str:
        """The best answer in the paper's format: `3 3 3`."""
        return " ".join([str(self.top)] * len(self.criteria))

    @property
    def praise(self) -> str:
        """The rubric's own words for its highest levels: `Readability: Correct grammar ... Coherence: ...`."""
        return " ".join(f"{title(c.name)}: {c.levels[-1].strip()}" for c in self.criteria)


def _load(name: str) -> Any:
    folder = resources.files("services.teacher.audit").joinpath("data")
    return yaml.safe_load(folder.joinpath(name).read_text(encoding="utf-8"))


@cache
def stories() -> tuple[BaseStory, ...]:
    """The twenty stories of data/stories.yaml: 8 good, 6 plain, 6 weak."""
    return tuple(BaseStory(row["grade"], row["text"]) for row in _load("stories.yaml"))


@cache
def words(kind: str) -> tuple[str, ...]:
    """One list of data/words.yaml."""
    return tuple(str(word) for word in _load("words.yaml")[kind])


def title(name: str) -> str:
    """A criterion's name as a heading: `plot_twists` -> `Plot twists`."""
    return name.replace("_", " ").capitalize()


def sentences(text: str) -> list[str]:
    """The text cut behind final marks."""
    return [s for s in _SENTENCE.split(text) if s]


def each_sentence(text: str, change: Callable[[str, int], str]) -> str:
    """The text with `change(sentence, index)` in place of each sentence."""
    return " ".join(change(s, i) for i, s in enumerate(sentences(text)))


def lower_first(sentence: str) -> str:
    """The sentence as it goes on behind other words."""
    return sentence if sentence.startswith("I ") else sentence[:1].lower() + sentence[1:]


def random_words(kind: str, count: int, rng: Random) -> str:
    """`count` words of a list, nine a line, each line dressed as a sentence."""
    drawn = [rng.choice(words(kind)) for _ in range(count)]
    return " ".join(" ".join(drawn[i : i + 9]).capitalize() + "." for i in range(0, count, 9))


def shuffled(text: str, rng: Random) -> str:
    """The words of a text in random order."""
    drawn = text.split()
    rng.shuffle(drawn)
    return " ".join(drawn)
