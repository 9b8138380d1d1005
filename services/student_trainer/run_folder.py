"""Where a run keeps what: paths of its folder, and its checkpoints in order."""

from dataclasses import dataclass
from pathlib import Path

from fabula_proto import CheckpointReady
from services.student_trainer import checkpoints


@dataclass(frozen=True)
class RunFolder:
    """The folder `runs/<run>`; its name is the run's."""

    path: Path

    @property
    def run(self) -> str:
        """The run's name."""
        return self.path.name

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.path / "run.yaml"

    @property
    def metrics(self) -> Path:
        """One line an update."""
        return self.path / "metrics.jsonl"

    @property
    def ledger(self) -> Path:
        """The word account."""
        return self.path / "ledger.json"

    @property
    def paused(self) -> Path:
        """While this file is there, interaction waits before the next update."""
        return self.path / "PAUSED"

    @property
    def stories(self) -> Path:
        """A Parquet dataset, one file an update."""
        return self.path / "stories"

    @property
    def checkpoints(self) -> Path:
        """Checkpoints that are kept."""
        return self.path / "checkpoints"

    @property
    def interact_resume(self) -> Path:
        """Where interaction goes on after a stop between kept checkpoints: a folder in here, named by its step."""
        return self.path / "resume" / "interact"

    def report(self, checkpoint: str) -> Path:
        """The evaluator's report of a checkpoint."""
        return self.path / "evaluations" / checkpoint / "report.json"


def announcement(folder: RunFolder, checkpoint: Path) -> CheckpointReady:
    """What the evaluator is told of a finished checkpoint; the words are in its manifest.

    Raises:
        CheckpointError: the checkpoint is incomplete.
    """
    facts = checkpoints.facts(checkpoint)
    return CheckpointReady(
        run=folder.run,
        checkpoint=checkpoint.name,
        path=str(checkpoint.resolve()),
        stage=facts["stage"],
        pretraining_words=facts["pretraining_words"],
        interaction_words=facts["interaction_words"],
    )
