"""Which texts a teacher is asked about: base stories, each attack on each of them, and texts that hold no story."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from fabula_proto import Story
from services.teacher.audit.attacks import ATTACKS, IMPOSTORS
from services.teacher.audit.material import GRADES, BaseStory, Scene, stories
from services.teacher.rubric import Criterion

QUICK_STORIES = 2  # of each grade
QUICK_TEXTS = 4  # of each impostor


@dataclass(frozen=True)
class Plan:
    """What an audit asks. The same criteria, seed and size always make the same plan."""

    criteria: tuple[Criterion, ...]
    seed: int
    quick: bool
    base: tuple[BaseStory, ...]
    attacked: tuple[tuple[str, ...], ...]  # for each attack, a text for each base story
    impostors: tuple[tuple[str, ...], ...]  # for each impostor, its texts

    @property
    def texts(self) -> tuple[str, ...]:
        """Everything that is to be judged, in the order that `summarise` expects of the verdicts."""
        groups = (tuple(story.text for story in self.base), *self.attacked, *self.impostors)
        return tuple(text for group in groups for text in group)

    @property
    def stories(self) -> tuple[Story, ...]:
        """The texts as stories with their position as id."""
        return tuple(Story(id=str(i), text=text) for i, text in enumerate(self.texts))


def plan(criteria: Sequence[Criterion], *, seed: int = 0, quick: bool = False) -> Plan:
    """The texts of an audit of a teacher that judges by `criteria`: about 1,650, with `quick` 500.

    Each attack on each story has a random state of its own, so that a new attack changes no other one's texts.
    """
    base = stories()
    if quick:
        base = tuple(s for grade in GRADES for s in [s for s in base if s.grade == grade][:QUICK_STORIES])

    def scene(name: str, story: str = "") -> Scene:
        return Scene(Random(f"{seed}\n{name}\n{story}"), tuple(criteria))

    attacked = tuple(tuple(a.make(s.text, scene(a.name, s.text)) for s in base) for a in ATTACKS)
    impostors = tuple(tuple(i.texts(scene(i.name))) for i in IMPOSTORS)
    if quick:
        impostors = tuple(texts[:QUICK_TEXTS] for texts in impostors)
    return Plan(tuple(criteria), seed, quick, base, attacked, impostors)
