"""Do the words of a sentence belong to the story so far?

A vector a word (data/topics.json.gz, trained by build_topics.py) such that the product of a new word with the faded
mean of the words before it is the log-odds that this story goes on so rather than another one. Names, pronouns and
words that were said before have no part in it: what they tie together, `continuity` sees.
"""

import base64
import gzip
import json
import math
from collections.abc import Sequence
from functools import cache
from importlib import resources
from operator import mul
from typing import NamedTuple

from services.teacher.judges.rules.classes import PACKAGE
from services.teacher.judges.rules.lexicon import Word
from services.teacher.judges.rules.text import Token

MEMORY = 60  # content words back that a word counts as said before
STEPS = 16  # values of an entry: four bits
SMOOTHING, PRIOR = 6.0, 0.12  # new words' worth of evidence that every story starts with, and their mean


class Topics(NamedTuple):
    """What the words say about each other."""

    related: float  # mean evidence, -1..1, that a word new to the story belongs to it
    fresh: float  # content words that were not said within the last MEMORY, a word


class Table(NamedTuple):
    """Vectors by word; `keep` is what is left of a word in the context once another has been said."""

    vectors: dict[str, tuple[float, ...]]
    keep: float


def may_count(token: Token) -> bool:
    """A word that is no name by its capital."""
    return token.kind == "word" and (token.first or not token.surface[0].isupper())


def topics(sentences: Sequence[Sequence[Word]]) -> Topics:
    """Measure a tagged story."""
    vectors, keep = table()
    context = [0.0] * len(next(iter(vectors.values())))
    weight = 0.0
    said: dict[str, int] = {}
    at = words = fresh = judged = 0
    evidence = 0.0
    for sentence in sentences:
        words += sum(w.token.kind == "word" for w in sentence)
        lowers = [w.token.lower for w in sentence if w.token.lower in vectors and may_count(w.token)]
        here = at
        for lower in lowers:
            if at - said.get(lower, -MEMORY - 1) > MEMORY:
                fresh += 1
                if here >= 3:
                    judged += 1
                    evidence += math.tanh(sum(map(mul, context, vectors[lower])) / weight)
            said[lower] = at
            at += 1
        for lower in lowers:
            context = [keep * c + v for c, v in zip(context, vectors[lower], strict=True)]
            weight = keep * weight + 1.0
    return Topics((evidence + SMOOTHING * PRIOR) / (judged + SMOOTHING), fresh / max(20, words))


@cache
def table() -> Table:
    """Load the shipped vectors once."""
    folder = resources.files(PACKAGE).joinpath("data")
    content = json.loads(gzip.decompress(folder.joinpath("topics.json.gz").read_bytes()))
    step, width = content["step"], content["dimensions"]
    values = [round((code - STEPS // 2) * step, 5) for code in range(STEPS)]
    codes = [value for byte in base64.b64decode(content["codes"]) for value in (values[byte >> 4], values[byte & 15])]
    words = content["words"].split(" ")
    return Table({w: tuple(codes[i * width : (i + 1) * width]) for i, w in enumerate(words)}, content["keep"])
