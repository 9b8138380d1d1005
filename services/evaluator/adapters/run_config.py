"""What the evaluator needs of a run's run.yaml."""

from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from services.evaluator.errors import EvaluatorError


class _Interact(BaseModel):
    model_config = ConfigDict(frozen=True)
    prompt: str | None = None
    max_new_tokens: int | None = Field(default=None, ge=1)


class _Evaluation(BaseModel):
    model_config = ConfigDict(frozen=True)
    stories: int | None = Field(default=None, ge=1)


class _Corpus(BaseModel):
    model_config = ConfigDict(frozen=True)
    source: str | None = None
    text_field: str = "text"


class _File(BaseModel):
    """run.yaml belongs to the trainer: keys that are not ours are passed over."""

    model_config = ConfigDict(frozen=True)
    preset: str | None = None
    seed: int | None = None
    interact: _Interact = _Interact()
    evaluation: _Evaluation = _Evaluation()
    corpus: _Corpus = _Corpus()


class RunConfig(BaseModel):
    """A run's own wishes; none where it has none."""

    model_config = ConfigDict(frozen=True)
    preset: str | None = None
    seed: int | None = None
    prompt: str | None = None
    max_new_tokens: int | None = None
    stories: int | None = None
    corpus: str | None = None
    text_field: str = "text"


def read_run_config(folder: Path | None) -> RunConfig:
    """The configuration in `folder`/run.yaml; nothing is set where there is no such file.

    Raises:
        EvaluatorError: the file is no YAML mapping, or one of our keys has a value of the wrong kind.
    """
    data = read_run_yaml(folder) if folder is not None else {}
    try:
        found = _File.model_validate(data)
    except ValidationError as error:
        raise EvaluatorError(f"{folder}/run.yaml has a value that cannot be used: {error}; mend the file") from error
    return RunConfig(
        preset=found.preset,
        seed=found.seed,
        prompt=found.interact.prompt,
        max_new_tokens=found.interact.max_new_tokens,
        stories=found.evaluation.stories,
        corpus=found.corpus.source,
        text_field=found.corpus.text_field,
    )


def read_run_yaml(folder: Path) -> dict[str, Any]:
    """The file as plain data; empty where there is none.

    Raises:
        EvaluatorError: it cannot be read as a YAML mapping.
    """
    path = folder / "run.yaml"
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise EvaluatorError(f"{path} cannot be read: {error}; restore it") from error
    if not isinstance(data, dict):
        raise EvaluatorError(f"{path} holds {type(data).__name__}; expected a mapping of settings")
    return data
