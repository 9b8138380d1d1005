"""The command that does a run again, from its own settings."""

import json
import shlex
from collections.abc import Iterator, Mapping
from typing import Any, get_args

import yaml

from services.local.card_facts import RunFacts
from services.local.card_text import model_place, place, yaml_value
from services.student_trainer import config
from services.student_trainer.learning_settings import AlgorithmName

BLOCKS = {name: name.replace("++", "_plus_plus") for name in get_args(AlgorithmName)}
"""Algorithm -> the section of `interact` that holds its settings."""


def run_command(facts: RunFacts) -> str:
    """The command that does the run again; of files only their names are said."""
    algorithm = facts.settings.interact.algorithm
    others = set(BLOCKS.values()) - {BLOCKS[algorithm]}
    preset = config.resolve(facts.settings.preset).model_dump(mode="json")
    parts = ["fabula", "up", "--preset", facts.settings.preset]
    source = facts.settings.corpus.source
    for key, value in _changed(preset, facts.recorded):
        section, _, rest = key.partition(".")
        if section in ("run", "preset", "tracking") or (section == "interact" and rest.partition(".")[0] in others):
            continue
        if key == "corpus.source":
            if facts.read_corpus:
                parts += ["--corpus", place(source)]
        elif key == "student.init":
            parts += ["--set", f"{key}={_text(model_place(value))}"]
        elif section == "student" and facts.settings.student.init is not None:
            continue  # does not count
        else:
            parts += ["--set", f"{key}={_text(value) if isinstance(value, str) else yaml_value(value)}"]
    if facts.teacher_option is not None:
        backend, _, model = facts.teacher_option.partition(":")
        parts += ["--teacher", f"{backend}:{place(model)}" if model else facts.teacher_option]
    if facts.eval_data is not None:
        parts += ["--eval-data", place(facts.eval_data)]
    return shlex.join(parts)


def _changed(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in new.items():
        before = old.get(key)
        if isinstance(value, dict) and isinstance(before, dict) and before:
            yield from _changed(before, value, f"{prefix}{key}.")
        elif value != before:
            yield f"{prefix}{key}", value


def _text(value: str) -> str:
    """A string as --set reads it back: in quotes where YAML would take it for something else."""
    text = place(value)
    try:
        plain = yaml.safe_load(text) == text
    except yaml.YAMLError:
        plain = False
    return text if plain else json.dumps(text, ensure_ascii=False)
