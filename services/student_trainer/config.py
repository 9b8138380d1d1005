"""From presets, overrides and files to a run's settings. Presets are YAML files beside this module."""

import difflib
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from services.student_trainer.settings import RunSettings


class ConfigError(ValueError):
    """A setting is missing, unknown or out of range; the message names it and the cure."""


def preset_names() -> list[str]:
    """Names of the presets that ship with the trainer."""
    folder = resources.files("services.student_trainer").joinpath("presets")
    return sorted(p.name.removesuffix(".yaml") for p in folder.iterdir() if p.name.endswith(".yaml"))


def load_preset(name: str) -> dict[str, Any]:
    """The settings of a preset as plain data.

    Raises:
        ConfigError: there is no such preset.
    """
    if name not in preset_names():
        raise ConfigError(
            f"preset {name!r} is unknown; choose one of {', '.join(preset_names())}{_near(name, preset_names())}"
        )
    text = resources.files("services.student_trainer").joinpath("presets", f"{name}.yaml").read_text(encoding="utf-8")
    data = yaml.safe_load(text)
    return {"preset": name, **data}


def apply_overrides(data: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Settings with `a.b=value` overrides laid over them; values are read as YAML.

    Raises:
        ConfigError: an override is not of the form key=value.
    """
    result: dict[str, Any] = yaml.safe_load(yaml.safe_dump(dict(data)))
    for override in overrides:
        key, separator, value = override.partition("=")
        if not separator or not key:
            raise ConfigError(
                f"override {override!r} is not of the form section.key=value, such as interact.batch_size=64"
            )
        node = result
        *parents, leaf = key.split(".")
        for parent in parents:
            child = node.setdefault(parent, {})
            if not isinstance(child, dict):
                raise ConfigError(f"override {override!r}: {parent} is a value, not a section")
            node = child
        try:
            node[leaf] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ConfigError(f"override {override!r}: the value is not YAML: {error}") from error
    return result


def resolve(preset: str, overrides: Sequence[str] = ()) -> RunSettings:
    """The preset with the overrides applied, checked as a whole.

    Raises:
        ConfigError: names each setting that is wrong.
    """
    return parse(apply_overrides(load_preset(preset), overrides))


def parse(data: Mapping[str, Any]) -> RunSettings:
    """Check plain data as run settings.

    Raises:
        ConfigError: names each setting that is wrong.
    """
    try:
        return RunSettings.model_validate(dict(data))
    except ValidationError as error:
        raise ConfigError("; ".join(_explain(e) for e in error.errors())) from error


def _explain(error: ErrorDetails) -> str:
    location, kind, found = error["loc"], error["type"], error["input"]
    name = ".".join(str(part) for part in location) or "settings"
    message = error["msg"]
    if kind in ("tuple_type", "list_type"):
        return f"{name} is {found!r}; give a list, such as [{found}]"
    if kind == "literal_error":
        choices = re.findall(r"'([^']*)'", error["ctx"]["expected"])
        return f"{name}: {message}, found {found!r}{_near(str(found), choices)}"
    if kind != "extra_forbidden":
        return f"{name}: {message.removeprefix('Value error, ')}"
    section: type[BaseModel] = RunSettings
    for part in location[:-1]:
        section = section.model_fields[str(part)].annotation  # type: ignore[assignment]
    known = sorted(section.model_fields)
    near = difflib.get_close_matches(str(location[-1]), known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"known here: {', '.join(known)}"
    return f"{name} is no setting; {hint}"


def _near(found: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(found, known, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def load(path: Path) -> RunSettings:
    """Settings from a run.yaml (its `run` key, the run's name, is not a setting).

    Raises:
        ConfigError: the file is missing or wrong.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read as YAML: {error}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path} holds {type(data).__name__}; expected a mapping of settings")
    data.pop("run", None)
    return parse(data)


def dump(settings: RunSettings, run: str) -> str:
    """The resolved configuration as YAML, with the run's name first."""
    return yaml.safe_dump({"run": run, **settings.model_dump(mode="json")}, sort_keys=False, allow_unicode=True)
