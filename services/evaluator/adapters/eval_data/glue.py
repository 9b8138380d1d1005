"""Rows of `glue_filtered/<task>.train.jsonl` and `<task>.valid.jsonl` as pairs of texts, joined as BabyLM does."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from services.evaluator.adapters.eval_data.rows import Line, read_lines
from services.evaluator.finetuning import Example
from services.evaluator.suites.glue import NAME, TASKS


@dataclass(frozen=True, slots=True)
class _Texts:
    """Which fields go into the first text, by `template`, and which is the second."""

    first: tuple[str, ...]
    second: str
    template: str = "{}"


_TEXTS: Mapping[str, _Texts] = {
    "boolq": _Texts(("question",), "passage"),
    "mnli": _Texts(("premise",), "hypothesis"),
    "mrpc": _Texts(("sentence1",), "sentence2"),
    "multirc": _Texts(("question", "answer"), "paragraph", "Question: {} Answer: {}"),
    "qqp": _Texts(("question1",), "question2"),
    "rte": _Texts(("sentence1",), "sentence2"),
    "wsc": _Texts(("span2_text", "span1_text"), "text", 'Does "{}" refer to "{}" in this passage?'),
}


@dataclass(frozen=True, slots=True)
class TaskRows:
    """A task's rows, in the order of its files."""

    train: tuple[Example, ...]
    valid: tuple[Example, ...]


def load_glue(place: Path, task: str) -> TaskRows | None:
    """Rows of `task` in the folder `place`; none where one of its two files is not there.

    Raises:
        BadDataError: a file is empty or unreadable, or a row lacks a text or a label of the task.
    """
    if not all((place / f"{task}.{split}.jsonl").is_file() for split in ("train", "valid")):
        return None
    return TaskRows(*(_examples(place, task, split) for split in ("train", "valid")))


def _examples(place: Path, task: str, split: str) -> tuple[Example, ...]:
    return tuple(_example(line, task) for line in read_lines(place, NAME, (f"{task}.{split}",)))


def _example(line: Line, task: str) -> Example:
    texts, label, labels = _TEXTS[task], line.row.get("label"), TASKS[task].labels
    if not isinstance(label, int) or isinstance(label, bool) or not 0 <= label < labels:
        raise line.bad(f"label = {label!r}", f"a whole number from 0 to {labels - 1}")
    first = texts.template.format(*(_text(line, key) for key in texts.first))
    return Example(first, _text(line, texts.second), label)


def _text(line: Line, key: str) -> str:
    """The string under `key`, which may be empty, as some hypotheses and questions are."""
    value = line.row.get(key)
    if not isinstance(value, str):
        raise line.bad(f"{key} = {value!r}", f"a string under {key!r}")
    return value
