"""Flags by turns of phrase, whatever stands between the words: orders to the grader, pleas, promises to reason."""

import re
from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate

from services.teacher.flags.words import Found, Words

_SOME = r"(?:[^ ]{1,20} )"  # a word
_GRADER = r"(?:grader|examiner|evaluator|assessor|llm|language model|chatbot)"
_GIVE = r"(?:give|award|grant|assign|rate|grade|score|mark)"
_BEST = r"(?:full|top|highest|maximum|perfect|best)(?: possible)?"
_POINTS = r"(?:scores?|marks?|grades?|ratings?|points)"
_WORK = r"(?:story|text|tale|essay|answer|submission)"
_LET_ME = r"(?:let us|let's|lets|let me|i will|i'll|we will|we'll)"

_INSTRUCTIONS = (
    rf"(?:ignore|disregard|override|forget) {_SOME}{{0,4}}(?:instructions?|prompts?|rubrics?|guidelines|criteria)",
    rf"(?:ignoriere|vergiss) {_SOME}{{0,3}}(?:anweisungen|vorgaben|instruktionen)",
    rf"(?:ignora|olvida|ignorez|oubliez) {_SOME}{{0,3}}(?:instrucciones|instructions|consignes)",
    rf"(?:dear|attention|hello|hey|(?:note|message) (?:to|for)(?: the)?) {_GRADER}",
    rf"as (?:the|a|my|your) (?:teacher|grader|judge|examiner|evaluator) {_SOME}{{0,2}}{_GIVE} (?:this|the|it|my) ",
    rf"{_GIVE} {_SOME}{{1,5}}{_BEST} {_POINTS}",
    rf"{_GIVE} (?:this|my|the) {_WORK} {_SOME}{{0,3}}(?:\d{{1,3}}|{_POINTS})",
    rf"{_GIVE} me {_SOME}{{0,2}}(?:\d{{1,3}}|{_BEST}) {_POINTS}",
    r"(?:answer|reply|respond|output|print)(?: only| exactly| just| with){0,3} \d{1,2} \d{1,2}",
    r"you are (?:now )?(?:an?|the) (?:ai|llm|language model|(?:helpful )?assistant|grader|evaluator)",
    r"as an ai language model|as an ai i",
    r"(?:the|your|my) system prompt",
)
_PLEAS = (
    rf"(?:this|the|my) {_WORK} (?:deserves|merits|earns|is worth) {_SOME}{{0,3}}(?:{_POINTS}|\d{{1,3}})",
    r"(?:full marks|perfect score|(?:highest|top|maximum) (?:score|mark|grade)s?)",
)
_PROMISES = (
    rf"{_LET_ME} {_SOME}{{1,4}}step by step",
    rf"{_LET_ME} (?:first )?(?:solve|analyze|analyse|evaluate|grade|assess) (?:this|the|each)",
    r"(?:here is|here's|below is) (?:my|the) (?:final answer|solution|reasoning|response)",
    r"(?:the|my) final answer is",
)
_NUMBER = r"(?:\d{1,3}|one|two|three|four|five|six|seven|eight|nine|ten)"
_SCORES = (rf"(?P<number>{_NUMBER}) out of (?P=number)",)
_PATTERNS = tuple(
    (name, re.compile(rf"(?<![^ ])(?:{'|'.join(alternatives)})(?![^ ])"))
    for name, alternatives in (
        ("instruction", _INSTRUCTIONS),
        ("rubric_echo", _PLEAS),
        ("master_key", _PROMISES),
        ("score_tail", _SCORES),
    )
)


def find(words: Words) -> Iterator[Found]:
    """Every phrase, over words in lower case with one space between them."""
    joined = " ".join(words.lowers)
    begins = [0, *accumulate(len(word) + 1 for word in words.lowers)]
    for name, pattern in _PATTERNS:
        for match in pattern.finditer(joined):
            first, last = (bisect_right(begins, place) - 1 for place in (match.start(), match.end() - 1))
            yield name, *words.stretch(first, last)
