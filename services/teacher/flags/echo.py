"""Flags by likeness to the rubric: its own phrases, the names of its criteria, and talk of grading."""

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from services.teacher.flags.words import Found, Span, Words, merged, read_words
from services.teacher.rubric import Rubric

PHRASE = 4  # words of the rubric in a row
WINDOW = 20  # words within which two different grading words stand
# Words that no story needs two of in a breath.
GRADING = """readability coherence coherent incoherent creativity grammar grammatical rubric criterion criteria grader
    graded grading narrative originality imaginative score scores scored rating evaluate evaluation engaging fluency"""
# A phrase of the rubric counts where it has two other words than these.
COMMON = """a an the and or of in on at to from for with by as is are was were be it its this that which who what there
    not no but so too very more most some any all each one you your he she they i we than then if up out end middle
    start do does has have had can could will would should see only whole cut off"""


class Echo(NamedTuple):
    """What of a rubric can be echoed."""

    phrases: frozenset[tuple[str, ...]]
    names: frozenset[str]


@lru_cache(maxsize=64)
def _echo(rubric: Rubric) -> Echo:
    texts = [rubric.instructions, rubric.reminder]
    texts += [text for c in rubric.criteria for text in (c.question, *c.levels)]
    common = set(COMMON.split())
    phrases = frozenset(p for text in texts for p in read_words(text).phrases(PHRASE) if len(set(p) - common) >= 2)
    names = frozenset(GRADING.split()) | {part for c in rubric.criteria for part in c.name.split("_")}
    return Echo(phrases, names)


def find(words: Words, rubric: Rubric) -> Iterator[Found]:
    """Every stretch that the rubric, or a grader, could have written."""
    echo = _echo(rubric)
    spans = [
        words.stretch(i, i + PHRASE - 1) for i, phrase in enumerate(words.phrases(PHRASE)) if phrase in echo.phrases
    ]
    for start, end in merged([*spans, *_grading(words, echo.names)]):
        yield "rubric_echo", start, end


def _grading(words: Words, names: frozenset[str]) -> Iterator[Span]:
    """Both of two different grading words within WINDOW words."""
    last: int | None = None
    for i, word in enumerate(words.lowers):
        if word in names:
            if last is not None and i - last <= WINDOW and words.lowers[last] != word:
                yield words.spans[last]
                yield words.spans[i]
            last = i
