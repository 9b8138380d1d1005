"""Corpora of every format, and what is said when one is wrong."""

import gzip
import json
from pathlib import Path

import pytest

from services.student_trainer.corpus import Corpus, CorpusError, load_documents
from services.student_trainer.settings import CorpusSettings

SHARED = Path(__file__).parents[2].parent / "shared" / "data" / "corpora"


def load(source: Path | str, seed: int = 1, text_field: str = "text", train_share: float = 0.5) -> Corpus:
    return load_documents(CorpusSettings(source=str(source), text_field=text_field, train_share=train_share), seed)


def write_rows(path: Path, rows: list[object]) -> Path:
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(data, mtime=0) if path.name.endswith(".gz") else data)
    return path


def test_grammar_needs_no_file() -> None:
    corpus = load_documents(CorpusSettings(grammar_words=2_000, train_share=0.9), seed=3)
    assert corpus == load_documents(CorpusSettings(grammar_words=2_000, train_share=0.9), seed=3)
    assert corpus.train_words + corpus.validation_words >= 2_000
    assert corpus.train_words > 4 * corpus.validation_words > 0
    assert "grammar" in corpus.description


def test_text_documents_are_separated_by_blank_lines(tmp_path: Path) -> None:
    path = tmp_path / "tales.txt"
    path.write_bytes("\ufeffOne fox.\r\nIt ran.\r\n\r\nTwo owls.\r\n \r\n\r\nThree — mice.\r\n".encode())
    corpus = load(path)
    assert sorted(corpus.train + corpus.validation) == ["One fox.\nIt ran.", "Three — mice.", "Two owls."]
    assert corpus.train_words + corpus.validation_words == 9


def test_text_without_blank_lines_has_a_document_a_line(tmp_path: Path) -> None:
    path = tmp_path / "childes.train"
    path.write_text("look a dog\nyes a dog\n")
    assert {*load(path).train, *load(path).validation} == {"look a dog", "yes a dog"}


@pytest.mark.parametrize("name", ["tales.jsonl", "tales.jsonl.gz"])
def test_rows_keep_the_split_they_say(tmp_path: Path, name: str) -> None:
    rows: list[object] = [
        {"story": "a fox", "split": "train"},
        {"story": "an owl", "split": "validation"},
        {"story": "a bear", "split": "test"},
        {"story": "a hare"},
    ]
    corpus = load(write_rows(tmp_path / name, rows), text_field="story")
    assert corpus.train == ["a fox", "a hare"]
    assert corpus.validation == ["an owl"]


def test_test_rows_stand_in_for_missing_validation_rows(tmp_path: Path) -> None:
    rows: list[object] = [{"text": "a fox", "split": "train"}, {"text": "a bear", "split": "test"}]
    assert load(write_rows(tmp_path / "tales.jsonl", rows)).validation == ["a bear"]


def test_splits_can_be_put_aside(tmp_path: Path) -> None:
    rows: list[object] = [{"text": f"story {i}", "split": "train"} for i in range(10)]
    path = write_rows(tmp_path / "tales.jsonl", [*rows, {"text": "an owl", "split": "validation"}])
    corpus = load_documents(CorpusSettings(source=str(path), use_splits=False, train_share=0.9), seed=1)
    assert (len(corpus.train), len(corpus.validation)) == (9, 1)
    assert "an owl" not in corpus.train + corpus.validation


def test_without_a_split_the_share_decides_and_the_seed_draws(tmp_path: Path) -> None:
    rows: list[object] = [{"text": f"story {i}"} for i in range(100)]
    path = write_rows(tmp_path / "tales.jsonl", rows)
    corpus = load(path, train_share=0.9)
    assert (len(corpus.train), len(corpus.validation)) == (90, 10)
    assert not set(corpus.train) & set(corpus.validation)
    assert load(path, train_share=0.9) == corpus
    assert load(path, seed=2, train_share=0.9).validation != corpus.validation


def test_two_documents_always_split_into_one_and_one(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "tales.jsonl", [{"text": "a"}, {"text": "b"}])
    corpus = load(path, train_share=0.99)
    assert (len(corpus.train), len(corpus.validation)) == (1, 1)


def test_a_training_document_is_never_a_validation_document(tmp_path: Path) -> None:
    rows: list[object] = [{"text": "a", "split": "train"}, {"text": "a", "split": "dev"}, {"text": "b", "split": "dev"}]
    assert load(write_rows(tmp_path / "tales.jsonl", rows)).validation == ["b"]
    same = write_rows(tmp_path / "same.jsonl", [{"text": "a"}, {"text": "a"}])
    with pytest.raises(CorpusError, match="all 1 validation documents are training documents too"):
        load(same)


def test_a_folder_is_read_in_sorted_order_without_hidden_files(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "x.txt").write_text("hidden\n")
    (tmp_path / ".y.txt").write_text("hidden\n")
    (tmp_path / "notes.md").write_text("not a corpus")
    write_rows(tmp_path / "b" / "one.jsonl.gz", [{"text": "third", "split": "train"}])
    write_rows(tmp_path / "a.jsonl", [{"text": "first", "split": "train"}, {"text": "v", "split": "dev"}])
    (tmp_path / "a.txt").write_text("second\n")
    assert load(tmp_path).train == ["first", "second", "third"]


def test_a_local_dataset_folder_loads_through_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    data = tmp_path / "data"
    data.mkdir()
    write_rows(data / "train.jsonl", [{"text": "a fox"}, {"text": "a hare"}])
    write_rows(data / "validation.jsonl", [{"text": "an owl"}])
    corpus = load(f"hf:{data}")
    assert corpus.train == ["a fox", "a hare"]
    assert corpus.validation == ["an owl"]
    with pytest.raises(CorpusError, match=r"train row 0 has no key 'story'; it has text"):
        load(f"hf:{data}", text_field="story")


def test_a_dataset_that_is_not_there_says_what_to_check(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(CorpusError, match=r"cannot be loaded.*Check the id and the network"):
        load(f"hf:{tmp_path / 'empty'}")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", "is empty"),
        ("a.txt", b" \n\n ", "holds no text"),
        ("a.txt", b"only one document", "holds 1 document; at least 2"),
        ("a.txt", b"fine\n\nna\xefve", r"a\.txt:3 is not UTF-8 \(byte 0xef\).*iconv"),
        ("a.jsonl", b'{"text": "a"}\n{"text": "na\xefve"}\n', r"a\.jsonl:2 is not UTF-8"),
        ("a.jsonl", b'{"text": "a"}\n\n{"text": \n', r"a\.jsonl:3 is not JSON"),
        ("a.jsonl", b"[1, 2]\n", r"a\.jsonl:1 holds a JSON list; expected one object a line"),
        ("a.jsonl", b'{"story": "a", "title": "b"}\n', r"a\.jsonl:1 has no key 'text'; it has story, title"),
        ("a.jsonl", b'{"text": 5}\n', r"a\.jsonl:1: text is int 5; expected a string"),
        ("a.jsonl", b'{"text": "a", "split": 1}\n', "split is 1; expected train"),
        ("a.jsonl", b'{"text": "a", "split": "learn"}\n', "rows say split 'learn'; expected one of"),
        ("a.jsonl.gz", b"not gzip", "not a whole gzip file"),
        ("a.jsonl.gz", gzip.compress(b'{"text": "a"}\n' * 99, mtime=0)[:-9], "not a whole gzip file"),
        ("a.csv", b"text\na\n", "is of no known kind; expected a name ending in .txt"),
    ],
)
def test_a_wrong_file_is_named_with_its_cure(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CorpusError, match=message):
        load(tmp_path / name)


def test_nothing_there_and_nothing_in_there(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"nowhere\.txt does not exist"):
        load(tmp_path / "nowhere.txt")
    with pytest.raises(CorpusError, match=r"holds no corpus file; expected \.txt"):
        load(tmp_path)


def test_real_stories_load_with_their_split() -> None:
    path = SHARED / "childrens_stories.jsonl"
    if not path.exists():
        pytest.skip(f"{path} is missing: real text to load; everything else is tested without it")
    corpus = load(path)
    assert corpus.train_words == 868_042
    assert not set(corpus.train) & set(corpus.validation)
