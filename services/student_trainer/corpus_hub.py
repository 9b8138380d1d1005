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

    path, _, configuration = (name, "", "") if Path(name).is_dir() else name.partition(":")
    try:
        splits = datasets.load_dataset(path, configuration or None)
    except (OSError, ValueError, DatasetsError) as error:
        raise CorpusError(
            f"dataset {name!r} cannot be loaded from the Hugging Face hub or a local folder: {error} "
            "Check the id and the network (and `hf auth login` for a gated one), or give a local file."
        ) from error
    for split, rows in splits.items():
        for number, row in enumerate(rows):
            found = row_of(row, text_field, f"{name} {split} row {number}")
            yield found if len(splits) == 1 else FileRow(found.text, str(split))
