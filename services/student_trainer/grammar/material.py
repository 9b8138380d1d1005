"""The grammar's material: words and lines from the YAML files beside this module, read once, on first use."""

from functools import cache
from importlib import resources
from typing import Any

import yaml


@cache
def words(name: str) -> tuple[str, ...]:
    """A list of single words from words.yaml."""
    return tuple(_read("words")[name].split())


@cache
def phrases(name: str) -> tuple[str, ...]:
    """A list of phrases from words.yaml, one a line."""
    return _lines(_read("words")[name])


@cache
def forms(name: str) -> tuple[tuple[str, ...], ...]:
    """Words that belong together (singular and plural; forms of a verb) from words.yaml, one group a line."""
    return tuple(tuple(line.split()) for line in phrases(name))


@cache
def riddles() -> tuple[tuple[str, str], ...]:
    """Riddles with their answers."""
    pairs = (line.split(" = ") for line in phrases("riddles"))
    return tuple((question, answer) for question, answer in pairs)


@cache
def plots() -> tuple[tuple[tuple[str, ...], ...], ...]:
    """Plots of whole tales: beats in order, of each beat its alternatives."""
    return tuple(tuple(_lines(beat) for beat in beats) for beats in _read("tales")["plots"].values())


@cache
def tale_lines(name: str) -> tuple[str, ...]:
    """Other lines of tales: `endings`, `shared_endings`, `stuck`."""
    return _lines(_read("tales")[name])


@cache
def plain_lines(name: str) -> tuple[str, ...]:
    """Lines of the texts that are not tales."""
    return _lines(_read("plain")[name])


@cache
def _read(name: str) -> dict[str, Any]:
    text = resources.files("services.student_trainer.grammar").joinpath(f"{name}.yaml").read_text(encoding="utf-8")
    data: dict[str, Any] = yaml.safe_load(text)
    return data


def _lines(text: str) -> tuple[str, ...]:
    return tuple(line.strip() for line in text.splitlines() if line.strip())
