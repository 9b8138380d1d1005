"""Texts that are not tales: talk with a child, descriptions, facts, instructions."""

from random import Random

from services.student_trainer.grammar.expand import capitalise, expand
from services.student_trainer.grammar.lexicon import cast, neutral_kinds
from services.student_trainer.grammar.material import forms, plain_lines, words


def child_talk(rng: Random) -> str:
    """A few turns between a grown-up and a child."""
    slots = _slots(rng)
    turns = [rng.choice(plain_lines("talk_starts")), *rng.sample(plain_lines("talk"), rng.randint(2, 5))]
    return " ".join(capitalise(expand(turn, slots, rng)) for turn in turns)


def description(rng: Random) -> str:
    """Sentences about what was there and what somebody did, with agreement of every common kind."""
    lines = rng.sample(plain_lines("descriptions"), rng.randint(3, 6))
    if rng.random() < 0.5:
        slots = _slots(rng)
        return " ".join(capitalise(expand(line, slots, rng)) for line in lines)
    return " ".join(capitalise(expand(line, _slots(rng), rng)) for line in lines)


def facts(rng: Random) -> str:
    """Simple statements about the world."""
    return " ".join(
        capitalise(expand(fact, _slots(rng), rng)) for fact in rng.sample(plain_lines("facts"), rng.randint(3, 6))
    )


def instructions(rng: Random) -> str:
    """How to do something, step by step."""
    slots = _slots(rng)
    order = ["First,", *rng.choices(["Then", "Next,", "After that,"], k=rng.randint(1, 3)), "Finally,"]
    steps = [
        f"{when} {expand(step, slots, rng)}."
        for when, step in zip(order, rng.sample(plain_lines("instructions"), len(order)), strict=True)
    ]
    return " ".join([expand(rng.choice(plain_lines("instruction_starts")), slots, rng), *steps])


def _slots(rng: Random) -> dict[str, str]:
    plural, plural2 = rng.sample(words("plurals"), 2)
    animal, animals = rng.choice(forms("animals"))
    verb, past, participle = rng.choice(forms("verbs"))
    one, two = rng.sample(neutral_kinds(), 2)
    return cast(rng) | {
        "things": plural,
        "things2": plural2,
        "animal": animal,
        "animals": animals,
        "verb": verb,
        "past": past,
        "participle": participle,
        "one": one,
        "two": two,
        "woman": rng.choice(words("folk_her")),
        "man": rng.choice(words("folk_his")),
        "her_name": rng.choice(words("her_names")),
        "his_name": rng.choice(words("his_names")),
        "number": rng.choice(words("numbers")),
        "colour": rng.choice(words("colours")),
    }
