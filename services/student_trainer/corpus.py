"""The text for next-word prediction: files, folders, Hugging Face datasets, or the grammar.

| source | documents |
|---|---|
| `grammar` | generated, see `grammar` |
| `x.txt`, `x.train` | separated by blank lines; where a file has none, each line is a document |
| `x.jsonl`, `x.jsonl.gz` | the text field of each row; a row's `split`, where there is one, is respected |
| a folder | all such files in it and below, in sorted order, hidden ones skipped |
| `hf:<dataset id>[:<configuration>]` | rows of `datasets.load_dataset`; a local dataset folder works too |
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from random import Random

from services.student_trainer.corpus_errors import CorpusError
from services.student_trainer.corpus_files import FileRow, read_path
from services.student_trainer.corpus_hub import HUB_PREFIX, read_hub
from services.student_trainer.grammar import generate_documents
from services.student_trainer.settings import GRAMMAR, CorpusSettings
from services.student_trainer.words import count_words

__all__ = ["Corpus", "CorpusError", "load_documents"]

TRAIN_SPLITS = ("train", "training")
VALIDATION_SPLITS = ("validation", "valid", "val", "dev")
TEST_SPLITS = ("test",)


@dataclass(frozen=True)
class Corpus:
    """Documents to learn from and documents to check on, never the same ones."""

    train: list[str]
    validation: list[str]
    description: str

    @cached_property
    def train_words(self) -> int:
        """Whitespace words of the training documents."""
        return sum(map(count_words, self.train))

    @cached_property
    def validation_words(self) -> int:
        """Whitespace words of the validation documents."""
        return sum(map(count_words, self.validation))


def load_documents(settings: CorpusSettings, seed: int) -> Corpus:
    """Read the corpus that the settings name and split it.

    Rows that say `split` keep theirs: validation is `validation` (or `valid`, `val`, `dev`) where there is one, else
    `test`; test rows are otherwise left out. Without a split, or with `use_splits` off, a seeded draw takes
    `train_share` of the training documents. A validation document that occurs word for word among them is left out.

    Raises:
        CorpusError: nothing is there, it cannot be read, or there is too little of it; says where and what to do.
    """
    if settings.source == GRAMMAR:
        texts = (document.text for document in generate_documents(settings.grammar_words, seed))
        rows: Iterable[FileRow] = (FileRow(text, None) for text in texts)
        name = "the story grammar"
    elif settings.source.startswith(HUB_PREFIX):
        rows = read_hub(settings.source.removeprefix(HUB_PREFIX), settings.text_field)
        name = settings.source
    else:
        rows = read_path(Path(settings.source).expanduser(), settings.text_field)
        name = Path(settings.source).name
    train, validation = _split([row for row in rows if row.text.strip()], settings, seed)
    description = f"{name}: {len(train):,} training and {len(validation):,} validation documents"
    return Corpus(train, validation, description)


def _split(rows: list[FileRow], settings: CorpusSettings, seed: int) -> tuple[list[str], list[str]]:
    if not rows:
        raise CorpusError(f"corpus {settings.source} holds no text; every document is empty. Name another source.")
    known = {*TRAIN_SPLITS, *VALIDATION_SPLITS, *TEST_SPLITS}
    if unknown := sorted({row.split for row in rows if row.split is not None} - known):
        raise CorpusError(
            f"corpus {settings.source}: rows say split {unknown[0]!r}; expected one of {', '.join(sorted(known))}. "
            "Rename it, or drop the key to let train_share decide."
        )
    train = [row.text for row in rows if row.split is None or row.split in TRAIN_SPLITS]
    validation = [row.text for row in rows if row.split in VALIDATION_SPLITS]
    validation = validation or [row.text for row in rows if row.split in TEST_SPLITS]
    if not (train and validation and settings.use_splits):
        train, validation = _draw(train or validation, settings, seed)
    learned = set(train)
    unseen = [text for text in validation if text not in learned]
    if not unseen:
        raise CorpusError(
            f"corpus {settings.source}: all {len(validation)} validation documents are training documents too; "
            "give more distinct documents"
        )
    return train, unseen


def _draw(texts: list[str], settings: CorpusSettings, seed: int) -> tuple[list[str], list[str]]:
    if len(texts) < 2:
        raise CorpusError(
            f"corpus {settings.source} holds 1 document; at least 2 are needed, one to learn from and one to check on. "
            "Separate documents in a .txt by blank lines, or give more."
        )
    size = min(max(round(len(texts) * settings.train_share), 1), len(texts) - 1)
    chosen = set(Random(seed).sample(range(len(texts)), size))
    train = [text for position, text in enumerate(texts) if position in chosen]
    return train, [text for position, text in enumerate(texts) if position not in chosen]
