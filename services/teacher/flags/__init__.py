"""What in a story speaks to the judge instead of the reader: flags with their places, the same for every judge.

A flag is a report. It changes no number; whoever trains on the verdicts decides what to do about it. The patterns were
tuned on published stories until they were all but silent there (docs/hard-to-fool.md has the rates), and are worded by
us after the sources that the attack suite names. They catch what training drifts into, not an author who reads them.

Time is linear in the length of the text, whatever it holds: a quantifier is bounded, or possessive where a run can be
entered at its first character only; the rest is one pass over words.
"""

from dataclasses import dataclass

from services.teacher.flags import echo, marks, phrases, runs
from services.teacher.flags.words import read_words
from services.teacher.rubric import Rubric
from services.teacher.student_text import student_span

FLAGS_VERSION = "1"  # raise it with any change that can change a flag: verdicts may be remembered with their flags

FLAGS: dict[str, str] = {
    "score_tail": "scores or rows of levels, at the end or elsewhere",
    "rubric_echo": "words of the rubric, or of grading",
    "master_key": 'an opener that announces an answer: "Thought process:", "Solution", ":"',
    "instruction": "an order or a plea to the grader",
    "control_token": "markers of chat templates, tokenizers and reasoning models",
    "fence": "a line that pretends to end the story",
    "repetition": "phrases that come again and make up much of the text",
    "padding": "runs of one character, word or mark; blank lines",
    "invisible": "characters that nobody sees: zero-width, text direction, tags, control characters",
    # Raised by the screen and by judges, for the text as a whole.
    "too_short": "less than a full sentence",
    "not_understood": "long enough, but the judge found no sentence that it can read",
}


@dataclass(frozen=True)
class Flag:
    """One place in a text: characters start to end, counted in code points."""

    start: int
    end: int
    name: str


def find_flags(text: str, rubric: Rubric) -> tuple[Flag, ...]:
    """Every flag that `text` raises under `rubric`, by place. Never raises; any text, of any length.

    A student's own markers (`<s>`, `</s>`, ...) and white space at the ends are left out of account.
    """
    begin, end = student_span(text)
    own = text[begin:end]
    words = read_words(own)
    found = {
        *marks.find(own, rubric),
        *phrases.find(words),
        *runs.find(own, words),
        *echo.find(words, rubric),
    }
    return tuple(Flag(*place) for place in sorted((begin + start, begin + stop, name) for name, start, stop in found))


def flag_names(text: str, rubric: Rubric) -> tuple[str, ...]:
    """The names of the flags that `text` raises, sorted, each once."""
    return tuple(sorted({flag.name for flag in find_flags(text, rubric)}))
