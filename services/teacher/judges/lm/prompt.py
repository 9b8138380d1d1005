"""What a language model is told: the rubric first, the same for all stories; then the fenced story; then a reminder.

The story is the only text here that nobody vouches for. It stands between two lines that carry a code derived from the
story itself, which its writer could not know, and the reminder after it has the last word.
"""

import hashlib
from dataclasses import dataclass
from typing import Protocol

from jinja2 import TemplateError

from services.teacher.rubric import Rubric

PROMPT_VERSION = "1"  # part of a judge's identity: raise it with every change of this file that changes a prompt
SLOT = "FABULA-STORY-SLOT"
# Some templates put today's date into the prompt, and the verdicts would change overnight.
TEMPLATE_CONSTANTS = {"date_string": "26 Jul 2024", "enable_thinking": False}


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


def rubric_text(rubric: Rubric) -> str:
    """The rubric as a judge reads it."""
    lines = [rubric.instructions.strip(), ""]
    for criterion in rubric.criteria:
        lines.append(f"{criterion.name}: {criterion.question.strip()}")
        lines += [f"{level} = {text.strip()}" for level, text in enumerate(criterion.levels)]
        lines.append("")
    return "\n".join(lines).strip()


def messages(rubric: Rubric, *, system: bool) -> list[dict[str, str]]:
    """The chat with SLOT where the story goes; without a system message where a template knows none."""
    rules = rubric_text(rubric)
    question = (
        f"The student's story stands between two lines that carry the same code.\n{SLOT}\n{rubric.reminder.strip()}"
    )
    if system:
        return [{"role": "system", "content": rules}, {"role": "user", "content": question}]
    return [{"role": "user", "content": f"{rules}\n\n{question}"}]


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
        messages(rubric, system=system), tokenize=False, add_generation_prompt=True, **TEMPLATE_CONSTANTS
    )
    head, *tails = str(text).split(SLOT)
    if len(tails) != 1:
        raise PromptError(f"the chat template shows the story {len(tails)} times instead of once; use another template")
    if rubric.criteria[-1].levels[-1].strip() not in head:
        raise PromptError("the chat template leaves out the system message or puts it last; use another template")
    return PromptFrame(head=head, tail=tails[0])


def fenced(story: str) -> str:
    """The story between two lines with a code of its own."""
    code = hashlib.sha256(story.encode("utf-8", errors="surrogatepass")).hexdigest()[:12]
    return f"--- story {code} ---\n{story}\n--- end {code} ---"
