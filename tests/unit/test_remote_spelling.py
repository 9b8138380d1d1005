"""How a model's tokenizer writes the answers: found over a server as it is found in the process, for three families."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from services.teacher.judges.joint import answer_levels
from services.teacher.judges.lm.tokens import StoryTokenizer, answer_tokens
from services.teacher.judges.remote.dialect import DialectError, Frame, Piece
from services.teacher.judges.remote.fields import as_dict, field, ids_at, limit_at, rows, text_at
from services.teacher.judges.remote.http import Http, LoopThread, RequestRefusedError
from services.teacher.judges.remote.local_tokenizer import LocalTokenizer, load_tokenizer
from services.teacher.judges.remote.sglang import SglangDialect
from services.teacher.judges.remote.tree import ROOT, MalformedAnswerError, Token
from services.teacher.rubric import Rubric
from tests.tiny_models import make_tiny_llama, make_tiny_neox, make_tiny_qwen2

MAKERS = {"llama": make_tiny_llama, "qwen2": make_tiny_qwen2, "neox": make_tiny_neox}


@pytest.fixture(scope="module", params=MAKERS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return MAKERS[request.param](tmp_path_factory.mktemp(request.param))


@pytest.fixture
def dialect(folder: Path) -> Iterator[tuple[SglangDialect, LoopThread]]:
    """SGLang's, whose tokenizer is in this process."""
    loop, http = LoopThread("test"), Http("http://nowhere", key=None, timeout_s=1, concurrency=1, key_hint="")
    yield SglangDialect(http, None, LocalTokenizer(AutoTokenizer.from_pretrained(folder))), loop
    loop.run(http.close())
    loop.close()


def rubric(criteria: int, levels: int) -> Rubric:
    names = [f"c{'x' * i}".replace("c", "c_") for i in range(criteria)]
    described = [{"name": name, "question": "?", "levels": [f"l{i}" for i in range(levels)]} for name in names]
    return Rubric.model_validate(
        {"name": "r", "version": "1", "instructions": "Grade.", "reminder": "Grade it.", "criteria": described}
    )


@pytest.mark.parametrize(("criteria", "levels"), [(1, 4), (3, 4), (2, 10)])
def test_answers_are_spelled_as_in_the_process(
    folder: Path, dialect: tuple[SglangDialect, LoopThread], criteria: int, levels: int
) -> None:
    server, loop = dialect
    tree = loop.run(server.tree(Frame("", ""), rubric(criteria, levels)))
    found: list[set[tuple[Token, ...]]] = [set() for _ in answer_levels(criteria, levels)]
    for path, answer in tree.leaves.items():
        found[answer].add(path)
    wanted = answer_tokens(StoryTokenizer(AutoTokenizer.from_pretrained(folder)), criteria, levels)
    assert found == [{tuple(ids) for ids in spelled} for spelled in wanted]


def test_what_a_path_is_forced_to_go_on_to(dialect: tuple[SglangDialect, LoopThread]) -> None:
    server, loop = dialect
    tree = loop.run(server.tree(Frame("", ""), rubric(3, 4)))
    pieces = loop.run(server.pieces("2 1"))
    joined, space = len(pieces) == 2, pieces[1].id
    assert tree.forced(ROOT) is None
    digits = [path for path in tree.children if len(path) == 1]
    assert {tree.forced(path) for path in digits} == ({None} if joined else {(*path, space) for path in digits})
    questions = {path for path in tree.children if not (path and tree.forced(path[:-1]) == path)}
    assert len(questions) == (1 + 8 + 32 if joined else 21)  # joined: " 2" and "2" both begin an answer


def test_a_tokenizer_without_digits_cannot_spell(dialect: tuple[SglangDialect, LoopThread]) -> None:
    server, loop = dialect

    class Deaf(SglangDialect):
        async def pieces(self, text: str) -> list[Piece]:
            return []

    deaf = Deaf(server.http, None)
    with pytest.raises(DialectError, match="cannot spell the answers"):
        loop.run(deaf.tree(Frame("", ""), rubric(1, 4)))


def test_a_tokenizer_in_this_process_writes_chats_and_keeps_stories_plain(folder: Path) -> None:
    transformers = AutoTokenizer.from_pretrained(folder)
    local = load_tokenizer(str(folder))
    chat = [{"role": "system", "content": "Grade."}, {"role": "user", "content": "The fox."}]
    if folder.name.startswith("neox"):
        with pytest.raises(RequestRefusedError, match="no system role"):
            local.render(chat)
        chat = chat[1:]
    text = local.render(chat)
    assert "The fox." in text
    assert text == transformers.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    control = set(transformers.all_special_ids)
    marker = transformers.eos_token
    assert control & set(local.ids(marker, trusted=True))
    assert not control & set(local.ids(f"The fox.{marker}", trusted=False))


def test_a_tokenizer_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DialectError, match="nowhere"):
        load_tokenizer(str(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    ("read", "answer"),
    [
        (lambda a: field(a, "a", 0), {"a": []}),
        (lambda a: field(a, "a", "b"), {"a": "text"}),
        (lambda a: rows(a, "a"), {"a": {}}),
        (lambda a: text_at(a, "a"), {"a": 1}),
        (lambda a: ids_at(a, "a"), {"a": [1, True]}),
        (lambda a: ids_at(a, "a"), {"a": [1.0]}),
        (as_dict, ["a"]),
    ],
)
def test_what_is_not_as_it_should_be_is_a_malformed_answer(read: object, answer: object) -> None:
    assert callable(read)
    with pytest.raises(MalformedAnswerError):
        read(answer)


@pytest.mark.parametrize(
    ("value", "limit"), [(2048, 2048), (0, None), (-1, None), (True, None), ("8", None), (None, None)]
)
def test_a_limit_is_a_positive_number(value: object, limit: int | None) -> None:
    assert limit_at({"n": value}, "n") == limit
