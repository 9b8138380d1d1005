"""A rubric's question to a server, and what comes of it for one story."""

import re
from dataclasses import dataclass
from math import exp

from services.teacher.judges.remote.dialect import Dialect, Draw, Frame
from services.teacher.judges.remote.tree import (
    ROOT,
    AnswerTree,
    MalformedAnswerError,
    Path,
    Reached,
    Token,
    answer_probabilities,
    checked,
    extend,
    halos,
    marginals,
    worth_asking,
)
from services.teacher.rubric import Rubric


@dataclass(frozen=True)
class Question:
    """A rubric, whole or of one criterion, as one server's model is asked it."""

    rubric: Rubric
    frame: Frame
    tree: AnswerTree

    @property
    def criteria(self) -> int:
        """C."""
        return len(self.rubric.criteria)


@dataclass(frozen=True)
class Found:
    """Distributions over levels (C x L), how much the criteria lean on each other (C), and the coverage."""

    levels: list[list[float]]
    halos: list[float]
    coverage: float


async def open_question(dialect: Dialect, rubric: Rubric) -> Question:
    """Write the rubric as the server's model reads it; raises as `Dialect` does."""
    frame = await dialect.frame(rubric)
    return Question(rubric, frame, await dialect.tree(frame, rubric))


async def scored(dialect: Dialect, question: Question, fenced: str, temperature: float) -> Found:
    """The distribution over the question's answers for a story, by a round of questions for every digit of the answer.

    The first round asks about the prompt alone, so that the server has it in its prefix cache when the others come.
    Answers so far that are next to impossible are not asked about (`tree.NEGLIGIBLE`).
    """
    tree = question.tree
    prompt = await dialect.prompt(question.frame, fenced, tree)
    reached: dict[Path, Reached] = {ROOT: Reached(0.0, 0.0)}
    known: dict[Path, dict[Token, float]] = {}
    paths = [ROOT]
    while paths:
        if unknown := [path for path in paths if path not in known]:
            known |= await dialect.next_tokens(prompt, unknown, tree)
        grown: dict[Path, Reached] = {}
        for path in paths:
            grown |= extend(tree, path, reached[path], checked(known[path]), temperature)
        reached |= grown
        paths = worth_asking(tree, grown)
    probabilities, coverage = answer_probabilities(tree, reached)
    size = question.criteria, question.rubric.levels
    return Found(marginals(probabilities, *size), halos(probabilities, *size), coverage)


async def drawn(dialect: Dialect, question: Question, fenced: str, draw: Draw) -> tuple[str, float]:
    """One answer for a story, and the coverage: the probability, unconstrained, that it begins as a valid one does."""
    prompt, tree = await dialect.prompt(question.frame, fenced, question.tree), question.tree
    sampled = await dialect.sample(prompt, draw)
    first = sampled.first if sampled.first is not None else (await dialect.next_tokens(prompt, [ROOT], tree))[ROOT]
    grown = extend(tree, ROOT, Reached(0.0, 0.0), checked(first), 1.0)
    return sampled.text, min(1.0, sum(exp(reached.plain) for reached in grown.values()))


def parsed(text: str, criteria: int, levels: int) -> tuple[int, ...]:
    """The levels that an answer names: `d d d` and nothing else, white space at its ends aside.

    Raises:
        MalformedAnswerError: it is anything else.
    """
    if not re.fullmatch(" ".join([f"[0-{levels - 1}]"] * criteria), text.strip()):
        form = " ".join("d" * criteria)
        raise MalformedAnswerError(
            f"the judge answered {text[:80]!r}, which is not '{form}' with levels 0-{levels - 1}"
        )
    return tuple(map(int, text.split()))
