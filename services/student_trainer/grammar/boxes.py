"""Box stories: who put what where, and where it is in the end. They make entity tracking learnable."""

from random import Random

from services.student_trainer.grammar.expand import tidy
from services.student_trainer.grammar.lexicon import neutral_kinds
from services.student_trainer.grammar.material import words

NUMBERED = 3
"""Boxes of a numbered story: box 0, box 1, box 2."""


def box_story(rng: Random) -> str:
    """Either named containers told as a tale, or numbered boxes told as a list."""
    return _numbered(rng) if rng.random() < 0.5 else _named(rng)


def _named(rng: Random) -> str:
    who, other = rng.sample(neutral_kinds(), 2)
    first, second = rng.sample(words("containers"), 2)
    thing, companion = rng.sample(words("things"), 2)
    where = {thing: first, companion: second}
    lines = [f"The {who} put the {thing} in the {first}.", f"The {who} put the {companion} in the {second}."]
    for _ in range(rng.randint(0, 3)):
        mover = rng.choice([who, other])
        moved = rng.choice([thing, companion])
        target = second if where[moved] == first else first
        lines.append(
            rng.choice(
                [
                    f"The {mover} moved the {moved} from the {where[moved]} to the {target}.",
                    f"Then the {mover} took the {moved} out of the {where[moved]} and put it in the {target}.",
                ]
            )
        )
        where[moved] = target
    asked = rng.choice([thing, companion])
    answer = where[asked]
    lines.append(
        rng.choice(
            [
                f"Now the {asked} is in the {answer}.",
                f'"Where is the {asked}?" asked the {other}. "It is in the {answer}," said the {who}.',
                f"The {other} looked for the {asked} and found it in the {answer}.",
            ]
        )
    )
    return " ".join(lines)


def _numbered(rng: Random) -> str:
    things = rng.sample(words("things"), NUMBERED + 2)
    boxes = [[things[i]] for i in range(NUMBERED)]
    spare = things[NUMBERED:]
    lines = [", ".join(f"Box {i} contains the {inside[0]}" for i, inside in enumerate(boxes)) + "."]
    for _ in range(rng.randint(0, 3)):
        full = [i for i, inside in enumerate(boxes) if inside]
        source = rng.choice(full)
        move = rng.random()
        if move < 0.5:
            target = rng.choice([i for i in range(NUMBERED) if i != source])
            moved = boxes[source].pop(rng.randrange(len(boxes[source])))
            boxes[target].append(moved)
            lines.append(f"Move the {moved} from Box {source} to Box {target}.")
        elif move < 0.75 and len(full) > 1:
            removed = boxes[source].pop(rng.randrange(len(boxes[source])))
            lines.append(f"Remove the {removed} from Box {source}.")
        elif spare:
            added = spare.pop()
            boxes[source].append(added)
            lines.append(f"Put the {added} into Box {source}.")
    asked = rng.randrange(NUMBERED)
    lines.append(f"Box {asked} contains {_contents(boxes[asked])}.")
    return tidy(" ".join(lines))


def _contents(inside: list[str]) -> str:
    return " and ".join(f"the {thing}" for thing in inside) if inside else "nothing"
