"""What one evaluation is asked to do."""

import re
from pathlib import Path
from typing import Literal, Self

from pydantic import Field

from fabula_proto import CheckpointReady
from fabula_proto.base import Message

_NAME = re.compile(r"^chck_(?P<seen>\d+)(?P<seen_unit>[kM]?)(?:_rl_(?P<spent>\d+)(?P<spent_unit>[kM]?))?$")
_UNITS = {"": 1, "k": 1_000, "M": 1_000_000}

Stage = Literal["pretrain", "interact"]


def words_in_name(checkpoint: str) -> tuple[int, int]:
    """Pretraining and interaction words that a name such as chck_90M_rl_100k says; (0, 0) for any other name."""
    match = _NAME.match(checkpoint)
    if match is None:
        return 0, 0
    seen = int(match["seen"]) * _UNITS[match["seen_unit"]]
    spent = int(match["spent"] or 0) * _UNITS[match["spent_unit"] or ""]
    return seen, spent


class EvaluationRequest(Message):
    """One checkpoint to be measured."""

    run: str = Field(description="Its run; empty for a checkpoint that belongs to none.")
    checkpoint: str
    path: Path
    stage: Stage
    pretraining_words: int = Field(default=0, ge=0)
    interaction_words: int = Field(default=0, ge=0)
    run_folder: Path | None = Field(default=None, description="Folder whose run.yaml says prompt and stories.")
    output: Path = Field(description="Folder for report.json and the suites' predictions.")
    again: bool = Field(default=False, description="Measure finished suites anew.")
    measured_again: tuple[str, ...] = Field(default=(), description="Those of them that are anew already.")

    @classmethod
    def from_ready(cls, ready: CheckpointReady, runs_dir: Path) -> Self:
        """For a checkpoint that its trainer announced; the report goes into the run's folder."""
        folder = runs_dir / ready.run
        return cls(
            run=ready.run,
            checkpoint=ready.checkpoint,
            path=Path(ready.path),
            stage=ready.stage,
            pretraining_words=ready.pretraining_words,
            interaction_words=ready.interaction_words,
            run_folder=folder,
            output=folder / "evaluations" / ready.checkpoint,
        )

    @classmethod
    def from_folder(cls, path: Path, output: Path | None = None) -> Self:
        """For a folder given by hand: words and stage from its name, run and output from where it lies.

        `<runs>/<run>/checkpoints/<name>` is a run's, and its report goes there. Any other writes into `output`, or
        into `evaluations/<name>` of the current folder where none is given.
        """
        path = path.resolve()
        seen, spent = words_in_name(path.name)
        folder = path.parent.parent
        of_run = path.parent.name == "checkpoints" and (folder / "run.yaml").is_file()
        usual = folder / "evaluations" / path.name if of_run else Path("evaluations") / path.name
        return cls(
            run=folder.name if of_run else "",
            checkpoint=path.name,
            path=path,
            stage="interact" if spent else "pretrain",
            pretraining_words=seen,
            interaction_words=spent,
            run_folder=folder if of_run else None,
            output=output or usual,
        )
