"""The prompt as a model's own chat template writes it, cut where the story goes."""

from dataclasses import dataclass
from typing import Protocol

from jinja2 import TemplateError

from services.teacher.judges.lm.prompt import SLOT, messages
from services.teacher.rubric import Rubric

# Some templates put today's date into the prompt, and the verdicts would change overnight.
CONSTANTS = {"date_string": "26 Jul 2024", "enable_thinking": False}


class PromptError(ValueError):
    """The chat template cannot carry the prompt."""


class ChatTemplate(Protocol):
    """What is needed of a tokenizer to write a chat."""

    def apply_chat_template(
        self, conversation: list[dict[str, str]], *, tokenize: bool, add_generation_prompt: bool, **constants: object
    ) -> object: ...


@dataclass(frozen=True)
class PromptFrame:
    """A rendered prompt around the place of the story: `head` ends, and `tail` begins, inside the user's message."""

    head: str
    tail: str


def frame(template: ChatTemplate, rubric: Rubric) -> PromptFrame:
    """Render the chat up to where the model answers.

    Raises:
        PromptError: the template is broken, loses or repeats the story, or puts the rubric behind it.
    """
    try:
        try:
            return _rendered(template, rubric, system=True)
        except TemplateError:
            return _rendered(template, rubric, system=False)  # Gemma's, for one, knows no system role
    except TemplateError as error:
        raise PromptError(f"the chat template is broken ({error}); mend it or use another") from error


def _rendered(template: ChatTemplate, rubric: Rubric, *, system: bool) -> PromptFrame:
    text = template.apply_chat_template(
        messages(rubric, system=system), tokenize=False, add_generation_prompt=True, **CONSTANTS
    )
    head, *tails = str(text).split(SLOT)
    if len(tails) != 1:
        raise PromptError(f"the chat template shows the story {len(tails)} times instead of once; use another template")
    if rubric.criteria[-1].levels[-1].strip() not in head:
        raise PromptError("the chat template leaves out the system message or puts it last; use another template")
    return PromptFrame(head=head, tail=tails[0])
