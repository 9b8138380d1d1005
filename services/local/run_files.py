"""The small files of a run, each read as far as it can be: one that is broken is named and the others still count."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from services.local.errors import CommandError
from services.student_trainer.settings import InteractSettings, PretrainSettings, RunSettings

RUN_FILE = "run.yaml"


class _Part(BaseModel):
    """What is read here of a file that holds more: a run of another version can still be looked at."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class InteractPart(_Part):
    """Of run.yaml's `interact`."""

    start: str | None = None
    word_budget: int = InteractSettings().word_budget


class PretrainPart(_Part):
    """Of run.yaml's `pretrain`."""

    word_budget: int = PretrainSettings().word_budget


class RunFile(_Part):
    """Of run.yaml."""

    preset: str = RunSettings().preset
    pretrain: PretrainPart = PretrainPart()
    interact: InteractPart = InteractPart()


class Facts(_Part):
    """Of a checkpoint's manifest: which one it is, and the words that led to it."""

    name: str
    stage: Literal["pretrain", "interact"]
    step: int = 0
    pretraining_words: int
    interaction_words: int


class UpdateLine(_Part):
    """Of an update's line in metrics.jsonl. Words are those of the account after it."""

    step: int
    score_mean: float
    words_prompt: int
    words_teacher: int
    words_corpus: int = 0
    words_student: int


class _PretrainLine(_Part):
    words_seen: int


@dataclass(frozen=True)
class Metrics:
    """What metrics.jsonl says: words of pretraining so far, and the updates in order."""

    pretraining_words: int
    updates: tuple[UpdateLine, ...]


class RunFiles:
    """Reads a run's folder; `problems` names the files that could not be read, and why."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.problems: list[str] = []

    def run_file(self) -> RunFile | None:
        """run.yaml; none where it is missing (which is no problem) or broken."""
        path = self.folder / RUN_FILE
        try:
            return RunFile.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError, yaml.YAMLError, ValidationError) as error:
            self.broken(path, error)
            return None

    def checkpoints(self) -> list[Facts]:
        """Finished checkpoints in the order in which they were reached."""
        manifests = sorted((self.folder / "checkpoints").glob("chck_*/manifest.json"))
        found = [facts for path in manifests if (facts := self.facts(path)) is not None]
        return sorted(found, key=lambda facts: (facts.stage == "interact", facts.pretraining_words, facts.step))

    def facts(self, manifest: Path) -> Facts | None:
        """What a manifest says; none where it is broken."""
        try:
            return Facts.model_validate(
                {**json.loads(manifest.read_text(encoding="utf-8")), "name": manifest.parent.name}
            )
        except (OSError, ValueError, TypeError) as error:
            self.broken(manifest, error)
            return None

    def metrics(self) -> Metrics:
        """metrics.jsonl; a last line that a kill cut short is passed over, as the trainer does."""
        path = self.folder / "metrics.jsonl"
        words, updates = 0, {}
        for number, line in self._lines(path):
            try:
                phase = json.loads(line).get("phase")
                if phase == "pretrain":
                    words = _PretrainLine.model_validate_json(line).words_seen
                elif phase != "alarm":
                    update = UpdateLine.model_validate_json(line)
                    updates[update.step] = update
            except (ValueError, AttributeError) as error:
                self.broken(path, error, f", line {number}")
        return Metrics(words, tuple(updates[step] for step in sorted(updates)))

    def broken(self, path: Path, error: Exception, place: str = "") -> None:
        """Remember that a file of the run cannot be used."""
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        self.problems.append(f"{path.relative_to(self.folder)}{place} cannot be read: {' '.join(reason.split())}")

    def _lines(self, path: Path) -> Iterator[tuple[int, str]]:
        try:
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        except FileNotFoundError:
            return
        except (OSError, UnicodeDecodeError) as error:
            self.broken(path, error)
            return
        yield from ((number, line) for number, line in enumerate(lines, start=1) if line.endswith("\n"))


def checked_folder(folder: Path) -> Path:
    """The folder of a run, absolute.

    Raises:
        CommandError: there is no run in it.
    """
    folder = folder.expanduser().resolve()
    if not (folder / RUN_FILE).is_file():
        raise CommandError(f"{folder} holds no run: there is no {RUN_FILE} in it; give a folder such as runs/<run>")
    return folder
