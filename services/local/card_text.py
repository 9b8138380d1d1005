"""Pieces of Markdown, and values without what is only of one machine."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from services.student_trainer.initial_model import is_path


def inline(settings: Mapping[str, Any], but: frozenset[str] = frozenset()) -> str:
    """Settings in a cell; those that are not set are left out."""
    return ", ".join(
        f"{key} {place(value) if isinstance(value, str) else yaml_value(value)}"
        for key, value in settings.items()
        if key not in but and value not in (None, {}, [])
    )


def said(text: str) -> str:
    """A sentence without the folders of somebody's machine."""
    return re.sub(r"(?<!\S)[/~](?:[^\s/]*/)+", "", text)


def yaml_value(value: object) -> str:
    """A value as --set takes it: YAML on one line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {yaml_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ", ".join(yaml_value(item) for item in value) + "]"
    return str(value)


def place(source: str) -> str:
    """A folder or file of somebody's machine is said by its name alone."""
    return Path(source).name if source.startswith(("/", "~")) else source


def model_place(name: str) -> str:
    """A model's Hub id, or of a folder its name alone."""
    path = Path(name).expanduser()
    return path.name if is_path(name) or path.is_dir() else name


def rows_table(rows: Mapping[str, object]) -> str:
    return markdown_table(("", ""), [(key, str(value)) for key, value in rows.items()])


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(" ".join(cell.replace("|", "\\|").split()) for cell in line) + " |" for line in lines
    )
