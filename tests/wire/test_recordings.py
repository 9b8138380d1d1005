"""Our servers answer as the real ones did: the same status, the same keys, the same types."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from tests.wire.controls import Controls
from tests.wire.engine import Engine
from tests.wire.exchanges import EXCHANGES, Exchange, shape
from tests.wire.llamacpp import create_llamacpp
from tests.wire.model import make_judge_folder
from tests.wire.serving import WireServer
from tests.wire.vllm import create_vllm

RECORDINGS = {"vllm": "vllm-0.32.0", "llamacpp": "llamacpp-b10605"}
CREATE: dict[str, Callable[[Engine, Controls], FastAPI]] = {"vllm": create_vllm, "llamacpp": create_llamacpp}
FOLDER = Path(__file__).parent / "recordings"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return Engine(make_judge_folder(tmp_path_factory.mktemp("models") / "judge"))


@pytest.fixture(scope="module", params=RECORDINGS)
def product(request: pytest.FixtureRequest, engine: Engine) -> Iterator[tuple[str, httpx.Client]]:
    app = CREATE[request.param](engine, Controls())
    with (
        WireServer(app, Controls()) as server,
        httpx.Client(base_url=server.url, timeout=30, trust_env=False) as client,
    ):
        yield request.param, client


def recorded(name: str) -> dict[str, Any]:
    answers = json.loads((FOLDER / f"{RECORDINGS[name]}.json").read_text(encoding="utf-8"))
    return {answer["name"]: answer for answer in answers}


def test_every_answer_has_the_recorded_status_keys_and_types(product: tuple[str, httpx.Client]) -> None:
    name, client = product
    expected = recorded(name)
    assert list(expected) == [exchange.name for exchange in EXCHANGES[name]], "record again: the questions changed"
    found = {exchange.name: exchange.ask(client) for exchange in EXCHANGES[name]}
    assert {n: a["status"] for n, a in found.items()} == {n: a["status"] for n, a in expected.items()}
    for question, answer in found.items():
        assert shape(answer["body"]) == shape(expected[question]["body"]), question


def test_what_is_constrained_is_constrained(product: tuple[str, httpx.Client]) -> None:
    name, client = product
    answers = {e.name: e.ask(client)["body"] for e in EXCHANGES[name] if _constrained(e)}
    texts = [answers[n]["choices"][0]["text"] if name == "vllm" else answers[n]["content"] for n in answers]
    assert texts
    for text in texts:
        assert [len(part) for part in text.split(" ")] == [1, 1, 1]
        assert set(text) <= set("0123 ")


def _constrained(exchange: Exchange) -> bool:
    return exchange.name in ("complete, a regular expression", "complete, a grammar")
