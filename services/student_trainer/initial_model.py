"""Where the model lies that `student.init` names. No torch: commands that only plan a run ask, too."""

from pathlib import Path

from services.student_trainer.student_errors import StudentError


def initial_folder(name: str) -> Path | None:
    """The folder, absolute, of a model on this machine; none for a Hub id, `ORG/NAME` or `NAME`.

    Raises:
        StudentError: it is a path where no folder is, or a folder without a model.
    """
    folder = Path(name).expanduser()
    if not folder.is_dir():
        if not is_path(name):
            return None
        raise StudentError(f"student.init {name}: no such folder, and not ORG/NAME")
    if not (folder / "config.json").is_file():
        raise StudentError(
            f"student.init {name}: no config.json in that folder; give one that save_pretrained wrote, "
            "such as a run's checkpoint"
        )
    return folder.resolve()


def is_path(name: str) -> bool:
    """Whether it cannot be a Hub id."""
    return name.startswith(("/", "~", ".")) or name.count("/") > 1 or name.endswith("/")
