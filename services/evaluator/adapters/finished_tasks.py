"""Tasks of a long suite that are done already: small files beside the report, so that a stop loses only one task."""

from pathlib import Path

from pydantic import ValidationError

from fabula_proto.base import Message
from services.evaluator.adapters.files import write_whole
from services.evaluator.errors import SuiteFailedError


class FinishedTask(Message):
    """A fine-tuned task's best epoch (from 1) and its predictions of the validation rows."""

    epoch: int
    predictions: tuple[int, ...]


class FinishedTasks:
    """The finished tasks in `folder`, each under a name that says what its result depends on."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, name: str) -> FinishedTask | None:
        """What was kept under `name`; none where nothing was, or nothing that can be read."""
        try:
            return FinishedTask.from_json((self._folder / f"{name}.json").read_bytes())
        except (OSError, ValidationError):
            return None

    def keep(self, name: str, task: FinishedTask) -> None:
        """Write one task whole or not at all.

        Raises:
            SuiteFailedError: it cannot be written.
        """
        try:
            write_whole(self._folder / f"{name}.json", task.to_json())
        except OSError as error:
            raise SuiteFailedError(f"fine-tuned, but {self._folder} cannot be written: {error}; make room") from error
