"""Documents from a Hugging Face dataset, by id or from a local dataset folder."""

from collections.abc import Iterator
from pathlib import Path

from services.student_trainer.corpus_errors import CorpusError
from services.student_trainer.corpus_files import FileRow, row_of

HUB_PREFIX = "hf:"


def read_hub(name: str, text_field: str) -> Iterator[FileRow]:
    """Rows of `<id>`, `<id>:<configuration>` or a local folder that `datasets.load_dataset` understands.

    Where the dataset has several splits, their names count; where it has one, the rows' own `split` does.

    Raises:
        CorpusError: the dataset cannot be loaded, or its rows lack the text field.
    """
    import datasets
    from datasets.exceptions import DatasetsError

    path, configuration = dataset_of(name)
    try:
        splits = datasets.load_dataset(_offline_copy(path) or path, configuration)
    except (OSError, ValueError, DatasetsError) as error:
        raise CorpusError(
            f"dataset {name!r} cannot be loaded from the Hugging Face hub or a local folder: {error} "
            "Check the id and the network (and `hf auth login` for a gated one), or give a local file."
        ) from error
    for split, rows in splits.items():
        for number, row in enumerate(rows):
            found = row_of(row, text_field, f"{name} {split} row {number}")
            yield found if len(splits) == 1 else FileRow(found.text, str(split))


def dataset_of(name: str) -> tuple[str, str | None]:
    """Dataset (an id, or a folder) and configuration of what follows `hf:`."""
    if Path(name).is_dir():
        return name, None
    path, _, configuration = name.partition(":")
    return path, configuration or None


def _offline_copy(path: str) -> str | None:
    """The whole repository where HF_HUB_OFFLINE is set and the cache has it, as `fabula download` leaves it.

    `datasets` by itself finds offline only what it has read and converted on this machine before.

    Raises:
        OSError: the cache has a part of it.
    """
    from huggingface_hub import constants, get_cached_repo_tree, snapshot_download
    from huggingface_hub.errors import CachedRepoTreeNotFoundError

    if not constants.HF_HUB_OFFLINE or Path(path).is_dir():
        return None
    try:
        get_cached_repo_tree(path, repo_type="dataset")
    except CachedRepoTreeNotFoundError:
        return None
    return snapshot_download(path, repo_type="dataset", local_files_only=True)
