"""Tales: whole ones, ones that ramble, ones that break off or get stuck."""

from random import Random

from services.student_trainer.grammar.expand import capitalise, expand
from services.student_trainer.grammar.lexicon import cast
from services.student_trainer.grammar.material import plots, riddles, tale_lines
from services.student_trainer.words import count_words

LONG_OPENING = "Let me tell you a long, magical tale. Once upon a time, in a faraway land,"
OPENING = "Once upon a time, in a faraway land,"
OPENINGS = {
    LONG_OPENING: 0.35,
    OPENING: 0.40,
    "Once upon a time,": 0.15,
    "A long time ago,": 0.10,
}
"""Chance of each way to begin. Good and bad tales begin alike, so that a beginning says nothing of what follows."""


TALE_WORDS_MAX = 74
"""Of a whole tale after its opening, so that nearly all of them end within the 90 tokens that a student may write."""
SKIP = "-"
"""A line that tells nothing: the beat is left out."""


def whole_tale(rng: Random) -> str:
    """A tale with one hero, a problem, a try, a helper, a resolution and an ending."""
    return f"{_opening(rng)} {' '.join(tale_beats(rng))}"


def tale_beats(rng: Random) -> list[str]:
    """The beats of a whole tale after its opening, the first in lower case."""
    while True:
        slots = tale_slots(rng)
        chosen = [line for line in map(rng.choice, rng.choice(plots())) if line != SKIP]
        endings = tale_lines("endings")
        if any("{a_helper}" in line for line in chosen):
            endings += tale_lines("shared_endings")
        beats = [expand(line, slots, rng) for line in (*chosen, rng.choice(endings))]
        if sum(map(count_words, beats)) <= TALE_WORDS_MAX:
            return [beats[0], *(capitalise(beat) for beat in beats[1:])]


def tale_slots(rng: Random) -> dict[str, str]:
    """A cast, and a riddle with its answer."""
    riddle, answer = rng.choice(riddles())
    return {**cast(rng), "riddle": riddle, "answer": capitalise(answer), "answer_low": answer}


def rambling_tale(rng: Random) -> str:
    """Correct sentences without a thread: each beat from another tale, with other people, and no ending."""
    parts = [_opening(rng), _beat(rng, first=True)]
    parts += [capitalise(_beat(rng, first=rng.random() < 0.3)) for _ in range(rng.randint(2, 6))]
    return " ".join(parts)


def broken_tale(rng: Random) -> str:
    """A tale that is cut off in the middle of a sentence, or says one thing over and over."""
    beats = tale_beats(rng)[: rng.randint(1, 4)]
    if rng.random() < 0.5:
        words = " ".join(beats).split()
        return f"{_opening(rng)} {' '.join(words[: rng.randint(4, max(5, len(words) - 1))])}"
    stuck = (
        expand(rng.choice(tale_lines("stuck")), tale_slots(rng), rng) if rng.random() < 0.6 else capitalise(beats[-1])
    )
    return " ".join([_opening(rng), *beats, *[capitalise(stuck)] * rng.randint(2, 5)])


def _beat(rng: Random, *, first: bool) -> str:
    plot = rng.choice(plots())
    alternatives = plot[0] if first else rng.choice(plot[1:])
    line = rng.choice([alternative for alternative in alternatives if alternative != SKIP])
    return expand(line, tale_slots(rng), rng)


def _opening(rng: Random) -> str:
    return rng.choices(list(OPENINGS), list(OPENINGS.values()))[0]
