"""Box stories: who put what where, and what is in the box now?

Ours, after the idea of Kim & Schuster (2023). A story begins with three boxes and their contents; things are moved,
added and taken away; the question is what one box holds. `ops` counts the operations that changed that box. All five
options name as many things as the right one does, and only things of the story, so neither length nor novelty helps;
among the wrong ones are what the box held before the last change and what other boxes hold. Chance is 20 %.
"""

import random
from itertools import combinations

from services.evaluator.generated import SOURCE
from services.evaluator.items import Item, ItemSet, choice

PER_OPERATIONS = 60
MAXIMUM_OPERATIONS = 3
OPTIONS = 5
SPLIT = "boxes"

CHARACTERS = ("fox", "owl", "girl", "boy", "queen", "king", "bear", "rabbit")
THINGS = ("lantern", "key", "crown", "apple", "ring", "book", "stone", "flower", "bell", "cup", "cake", "coin")
COLOURS = ("red", "blue", "green", "white", "black", "yellow")
MOST_THINGS = 2

Boxes = dict[str, tuple[str, ...]]


def _listed(things: tuple[str, ...]) -> str:
    return " and ".join(f"the {thing}" for thing in things)


class _Story:
    """One story as it is being told: the boxes, the text, and how often each box changed."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.who = rng.choice(CHARACTERS)
        things = rng.sample(THINGS, 8)
        sizes = [rng.randint(1, MOST_THINGS) for _ in range(3)]
        pool = iter(things)
        self.boxes: Boxes = {
            colour: tuple(next(pool) for _ in range(size))
            for colour, size in zip(rng.sample(COLOURS, 3), sizes, strict=True)
        }
        self.mentioned = [thing for held in self.boxes.values() for thing in held]
        self.outside = list(pool)
        self.changes = dict.fromkeys(self.boxes, 0)
        self.before = dict(self.boxes)
        self.sentences = [f"The {self.who} put {_listed(held)} in the {box} box." for box, held in self.boxes.items()]

    def step(self) -> None:
        """One random operation that keeps every box at no more than two things."""
        room = [box for box, held in self.boxes.items() if len(held) < MOST_THINGS]
        full = [box for box, held in self.boxes.items() if held]
        kinds = [
            kind
            for kind, possible in (
                ("move", bool(room) and any(source != target for source in full for target in room)),
                ("add", bool(room) and bool(self.outside)),
                ("take", bool(full)),
            )
            if possible
        ]
        kind = self.rng.choice(kinds)
        if kind == "add":
            thing, target = self.outside.pop(), self.rng.choice(room)
            self.mentioned.append(thing)
            self._change(target, (*self.boxes[target], thing))
            self.sentences.append(f"Then the {self.who} put the {thing} in the {target} box.")
            return
        pairs = [(source, target) for source in full for target in room if source != target]
        source, goal = self.rng.choice(pairs) if kind == "move" else (self.rng.choice(full), "")
        thing = self.rng.choice(self.boxes[source])
        self._change(source, tuple(held for held in self.boxes[source] if held != thing))
        if kind == "take":
            self.sentences.append(f"Then the {self.who} took the {thing} from the {source} box.")
            return
        self._change(goal, (*self.boxes[goal], thing))
        self.sentences.append(f"Then the {self.who} moved the {thing} to the {goal} box.")

    def _change(self, box: str, held: tuple[str, ...]) -> None:
        self.before[box] = self.boxes[box]
        self.boxes[box] = held
        self.changes[box] += 1

    def wrong(self, box: str) -> list[tuple[str, ...]]:
        """Wrong contents of the right size, the tempting ones first."""
        right = self.boxes[box]
        tempting = [self.before[box], *(held for other, held in self.boxes.items() if other != box)]
        others = list(combinations(self.mentioned, len(right)))
        self.rng.shuffle(others)
        found: dict[frozenset[str], tuple[str, ...]] = {}
        for held in (*tempting, *others):
            if len(held) == len(right) and set(held) != set(right):
                found.setdefault(frozenset(held), held)
        return list(found.values())


def _question(rng: random.Random, ops: int) -> Item | None:
    """A question on a box that changed `ops` times, or none where this draw has no such box."""
    story = _Story(rng)
    for _ in range(ops + rng.randint(0, 1)):
        story.step()
    asked = [box for box, count in story.changes.items() if count == ops and story.boxes[box]]
    if not asked:
        return None
    box = rng.choice(asked)
    wrong = story.wrong(box)
    if len(wrong) < OPTIONS - 1:
        return None
    options = [f"{_listed(held)}." for held in (story.boxes[box], *wrong[: OPTIONS - 1])]
    context = " ".join([*story.sentences, f"Now the {box} box held "])
    return choice(f"{SPLIT}_{ops}_ops", context, options, (("split", SPLIT), ("ops", str(ops))))


def box_stories(seed: int, per_operations: int = PER_OPERATIONS, most: int = MAXIMUM_OPERATIONS) -> ItemSet:
    """`per_operations` distinct questions for each number of operations 0..`most`; 240 by default."""
    items: list[Item] = []
    for ops in range(most + 1):
        rng = random.Random(f"{seed}/{ops}")
        found: dict[str, Item] = {}
        while len(found) < per_operations:
            item = _question(rng, ops)
            if item is not None:
                found.setdefault(item.candidates[0].context, item)
        items += found.values()
    return ItemSet(tuple(items), SOURCE)
