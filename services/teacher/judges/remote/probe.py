"""One probe for all servers, before the first story: does this server do what the judge relies on?"""

import math
import re
from dataclasses import replace
from typing import Any

from services.teacher.judges.lm.prompt import fenced
from services.teacher.judges.remote.asking import Question
from services.teacher.judges.remote.dialect import Dialect, DialectError, Draw
from services.teacher.judges.remote.http import RequestRefusedError
from services.teacher.judges.remote.tree import ROOT, checked
from services.teacher.spec import Mode

STORY = "The fox lost his lantern. He asked the owl, who knew the night. They found it at dawn."
LETTERS = "x-z"
# What a digit may have at most that did not come back, since others more probable filled the server's list.
UNSEEN = 1e-3


async def probe(dialect: Dialect, questions: tuple[Question, ...], mode: Mode, draw: Draw) -> str:
    """Ask about a harmless story; what was found, for the notes.

    Raises:
        DialectError: a digit does not come back, a constraint does not hold, or the prompt is read otherwise than it
            is written. The message says which, and the cure.
        Exception: whatever `Http` raises.
    """
    seen, prompt = [], None
    for question in questions:
        prompt = await dialect.prompt(question.frame, fenced(STORY), question.tree)
        seen.append(await _digits(dialect, question, prompt))
    levels = questions[0].rubric.levels
    parts = [f"{min(seen)} of {levels} digits", await dialect.look(questions[0].frame, prompt)]
    if mode == "sample":
        parts.append(await _constraint(dialect, prompt, draw))
    return f"probe: {', '.join(parts)}; mode {mode}; client httpx"


async def _digits(dialect: Dialect, question: Question, prompt: Any) -> int:
    """How many levels came back with a log-probability as the first of an answer."""
    tree, levels = question.tree, question.rubric.levels
    found = checked((await dialect.next_tokens(prompt, [ROOT], tree))[ROOT])
    first = {path[0] for path in tree.leaves}
    per_level = tree.answers // levels
    seen = {answer // per_level for path, answer in tree.leaves.items() if path[0] in found}
    least = math.exp(min(found.values(), default=0.0))
    if len(seen) < levels and (least > UNSEEN or not seen):
        raise DialectError(
            f"of the digits 0-{levels - 1} only {sorted(seen)} came back with a log-probability, among {len(found)} "
            f"tokens, {len(first & set(found))} of them an answer's; the model does not answer with digits, or the "
            "server returns too few tokens: serve an instruct model, or let it return more"
        )
    return len(seen)


async def _constraint(dialect: Dialect, prompt: Any, draw: Draw) -> str:
    """Ask for letters where the model would write digits: only a server that heeds the constraint gives them."""
    if not dialect.constrains:
        return "answers not constrained"
    letters = replace(draw, signs=LETTERS)
    try:
        answer = (await dialect.sample(prompt, letters)).text
    except RequestRefusedError as error:
        raise DialectError(f"the server takes no constraint on answers ({error}); turn its grammars on") from error
    if not re.fullmatch(letters.pattern, answer.rstrip()):
        raise DialectError(
            f"the server ignores a constraint on answers: held to {letters.pattern!r} it wrote {answer[:80]!r}; use a "
            "version that knows it, or mode joint or independent"
        )
    return "the constraint bites"
