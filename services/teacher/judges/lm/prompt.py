"""What a language model is told: the rubric first, the same for all stories; then the fenced story; then a reminder.

The story is the only text here that nobody vouches for. It stands between two lines that carry a code derived from the
story itself, which its writer could not know, and the reminder after it has the last word.
"""

import hashlib

from services.teacher.rubric import Rubric

PROMPT_VERSION = "2"  # part of a judge's identity: raise it with every change of this file that changes a prompt
SLOT = "FABULA-STORY-SLOT"
NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def rubric_text(rubric: Rubric) -> str:
    """The rubric as a judge reads it."""
    lines = [rubric.instructions.strip(), ""]
    for criterion in rubric.criteria:
        lines.append(f"{criterion.name}: {criterion.question.strip()}")
        lines += [f"{level} = {text.strip()}" for level, text in enumerate(criterion.levels)]
        lines.append("")
    return "\n".join(lines).strip()


def answer_format(rubric: Rubric) -> str:
    """How to answer: one number a criterion. It follows the rubric, so that a rubric of one criterion asks for one."""
    names, top = [criterion.name for criterion in rubric.criteria], rubric.levels - 1
    if len(names) == 1:
        return f"Answer with one whole number from 0 to {top}, for {names[0]}. Write nothing else."
    count = NUMBERS[len(names) - 1] if len(names) <= len(NUMBERS) else len(names)
    return (
        f"Answer with {count} whole numbers from 0 to {top}, separated by single spaces, in this order: "
        f"{', '.join(names)}. Write nothing else."
    )


def messages(rubric: Rubric, *, system: bool) -> list[dict[str, str]]:
    """The chat with SLOT where the story goes; without a system message where a template knows none."""
    rules = rubric_text(rubric)
    question = (
        f"The student's story stands between two lines that carry the same code.\n{SLOT}\n"
        f"{rubric.reminder.strip()} {answer_format(rubric)}"
    )
    if system:
        return [{"role": "system", "content": rules}, {"role": "user", "content": question}]
    return [{"role": "user", "content": f"{rules}\n\n{question}"}]


def fenced(story: str) -> str:
    """The story between two lines with a code of its own."""
    code = hashlib.sha256(story.encode("utf-8", errors="surrogatepass")).hexdigest()[:12]
    return f"--- story {code} ---\n{story}\n--- end {code} ---"
