"""What of a text is the student's: everything but its tokenizer's markers and white space at the ends."""

import re

# What tokenizers of students put around a text; a story may arrive with them at its ends.
STUDENT_MARKERS = ("<s>", "</s>", "<pad>", "<|endoftext|>")

CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


def student_span(text: str) -> tuple[int, int]:
    """Where the student's own words begin and end: markers, white space and control characters at the ends left out."""
    start, end = 0, len(text)
    while start < end and (step := _edge(text, start, end, at_end=False)):
        start += step
    while start < end and (step := _edge(text, start, end, at_end=True)):
        end -= step
    return start, end


def student_words(text: str) -> str:
    """The student's own words: markers and white space at the ends gone, each control character a space.

    Nothing else is touched. Tabs and line ends stay; markers inside the text stay, for the judge to see.
    """
    start, end = student_span(text)
    return CONTROL.sub(" ", text[start:end])


def _edge(text: str, start: int, end: int, *, at_end: bool) -> int:
    """Length of the white space, control character or marker at one edge of text[start:end], 0 where there is none."""
    edge = text[end - 1 if at_end else start]
    if edge.isspace() or CONTROL.match(edge):
        return 1
    found = text.endswith if at_end else text.startswith
    return next((len(marker) for marker in STUDENT_MARKERS if found(marker, start, end)), 0)
