"""A rubric as one model's tokenizer writes it: the prompt's tokens and the tree of answers. Needs no weights."""

from collections.abc import Sequence

from services.teacher.judges import joint
from services.teacher.judges.base import JudgeUnavailableError
from services.teacher.judges.lm import template
from services.teacher.judges.lm.tokens import StoryTokenizer, answer_tokens
from services.teacher.rubric import Rubric
from services.teacher.spec import Mode

MAX_ANSWERS = 1024


class Question:
    """One prompt, all but its story, and every answer to it.

    A prompt is `head`, the same for all stories and tokenised once; the fenced story's own tokens; and `tail`.

    Raises:
        JudgeUnavailableError: the rubric has too many answers, or the tokenizer or its template cannot carry them.
    """

    def __init__(self, tokens: StoryTokenizer, rubric: Rubric, model: str) -> None:
        self.rubric = rubric
        self.criteria, self.levels = len(rubric.criteria), rubric.levels
        if self.levels**self.criteria > MAX_ANSWERS:
            raise JudgeUnavailableError(
                f"rubric {rubric.name!r} has {self.levels**self.criteria} possible answers; at most {MAX_ANSWERS} can "
                "be scored together: use fewer criteria or levels, or FABULA_MODE=independent"
            )
        try:
            frame = template.frame(tokens.tokenizer, rubric)
            self.tree = joint.build_tree(answer_tokens(tokens, self.criteria, self.levels))
        except ValueError as error:
            raise JudgeUnavailableError(f"model {model!r} cannot be asked the rubric: {error}") from error
        self.head, self.tail = tokens.trusted(frame.head), tokens.trusted(frame.tail)

    def prompt(self, fenced_story: Sequence[int]) -> list[int]:
        """Tokens of the prompt after `head`."""
        return [*fenced_story, *self.tail]


def questions(tokens: StoryTokenizer, rubric: Rubric, mode: Mode, model: str) -> tuple[Question, ...]:
    """What `mode` asks: the whole rubric at once, or in mode independent one criterion after another.

    Raises:
        JudgeUnavailableError: see `Question`.
    """
    rubrics = rubric.split() if mode == "independent" else (rubric,)
    return tuple(Question(tokens, part, model) for part in rubrics)
