"""What is easily got wrong with each product is there in our server of its kind."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.wire.bench import CREATE, Bench
from tests.wire.controls import Controls
from tests.wire.exchanges import CHAT, DIGITS
from tests.wire.serving import WireServer
from tests.wire.tgi import create_tgi


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench.at(tmp_path_factory.mktemp("models") / "judge")


class Asking:
    """A server and a client that speaks JSON to it."""

    def __init__(self, server: WireServer) -> None:
        self.server = server
        self.client = httpx.Client(base_url=server.url, timeout=30, trust_env=False)

    def __call__(self, path: str, **body: Any) -> tuple[int, Any]:
        answer = self.client.post(path, json=body)
        kind = answer.headers.get("content-type", "")
        return answer.status_code, answer.json() if kind.startswith("application/json") else answer.text


@pytest.fixture(scope="module")
def asking(bench: Bench) -> Iterator[dict[str, Asking]]:
    servers = {
        name: WireServer(create(bench.engine, controls := Controls()), controls) for name, create in CREATE.items()
    }
    asked = {}
    for name, server in servers.items():
        server.start()
        asked[name] = Asking(server)
    yield asked
    for one in asked.values():
        one.client.close()
        one.server.stop()


def test_tgi_begins_twice_what_is_templated_already(asking: dict[str, Asking], bench: Bench) -> None:
    tgi = asking["tgi"]
    _, templated = tgi("/chat_tokenize", messages=CHAT)
    assert templated["templated_text"].startswith("<|begin_of_text|>")
    tgi("/generate", inputs=templated["templated_text"], parameters={"max_new_tokens": 1})
    assert tgi.server.controls.prompts[-1][:3] == [bench.engine.begin_id] * 2 + [1]
    tgi("/v1/chat/completions", messages=CHAT, max_tokens=1)
    assert tgi.server.controls.prompts[-1].count(bench.engine.begin_id) == 1


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"temperature": 0.0}, "`temperature` must be strictly positive"),
        ({"top_p": 1.0}, "`top_p` must be > 0.0 and < 1.0"),
        ({"top_n_tokens": 6}, "`top_n_tokens` must be >= 0 and <= 5. Given: 6"),
        ({"max_new_tokens": 3000}, "must be <= 2048"),
    ],
)
def test_tgi_refuses_in_its_own_form(asking: dict[str, Asking], parameters: dict[str, Any], says: str) -> None:
    status, body = asking["tgi"]("/generate", inputs="a", parameters=parameters)
    assert (status, body["error_type"]) == (422, "validation")
    assert says in body["error"]


def test_tgi_shows_what_the_grammar_left(asking: dict[str, Asking]) -> None:
    parameters = {"max_new_tokens": 1, "details": True, "top_n_tokens": 5}
    _, free = asking["tgi"]("/generate", inputs="The fox", parameters=parameters)
    grammar = {"type": "regex", "value": "[0-3]"}
    _, held = asking["tgi"]("/generate", inputs="The fox", parameters=parameters | {"grammar": grammar})
    assert len(free["details"]["top_tokens"][0]) == 5
    assert sorted(token["text"] for token in held["details"]["top_tokens"][0]) == ["0", "1", "2", "3"]
    by_text = {token["text"]: token["logprob"] for token in free["details"]["top_tokens"][0]}
    assert held["details"]["tokens"][0]["logprob"] > by_text[held["details"]["tokens"][0]["text"]]


def test_tgi_is_full_at_once_and_unreadable_bodies_get_plain_text(bench: Bench) -> None:
    controls = Controls()
    with WireServer(create_tgi(bench.engine, controls, max_concurrent_requests=0), controls) as server:
        ask = Asking(server)
        assert ask("/generate", inputs="a") == (429, {"error": "Model is overloaded", "error_type": "overloaded"})
        status, text = ask("/generate", inputs=3)
        assert (status, isinstance(text, str)) == (422, True)
        ask.client.close()


def test_vllm_shows_the_models_own_probabilities_but_for_a_grammar(asking: dict[str, Asking]) -> None:
    vllm = asking["vllm"]
    body = {"model": "tiny", "prompt": [0, 288, 413], "max_tokens": 1, "logprobs": 0, "logprob_token_ids": DIGITS}

    def shown(**more: Any) -> dict[str, float]:
        _, answer = vllm("/v1/completions", **body, **more)
        found: dict[str, float] = answer["choices"][0]["logprobs"]["top_logprobs"][0]
        return {text: round(value, 4) for text, value in found.items() if text in "0123"}

    own = shown(temperature=0)
    assert shown(temperature=5.0, seed=1, allowed_token_ids=DIGITS) == own
    assert shown(guided_choice=["1"]) == own
    assert min(shown(structured_outputs={"choice": ["0", "1", "2", "3"]}).values()) > min(own.values())


def test_sglang_tempers_what_generate_shows_and_scores_raw_text(asking: dict[str, Asking], bench: Bench) -> None:
    sglang = asking["sglang"]
    own = bench.engine.logprobs([0, 288, 413])

    def shown(temperature: float) -> list[float]:
        params = {"max_new_tokens": 1, "temperature": temperature}
        more = {"return_logprob": True, "token_ids_logprob": DIGITS}
        _, answer = sglang("/generate", input_ids=[0, 288, 413], sampling_params=params, **more)
        return [row[0] for row in answer["meta_info"]["output_token_ids_logprobs"][0]]

    assert shown(1.0) == pytest.approx(own[DIGITS].tolist(), abs=1e-4)
    assert shown(0.2) == pytest.approx((own / 0.2).log_softmax(-1)[DIGITS].tolist(), abs=1e-4)
    _, score = sglang("/v1/score", query="The ", items=["fox"], label_token_ids=DIGITS)
    assert sglang.server.controls.prompts[-1] == bench.engine.encode("The fox", add_special=True)
    assert sum(score["scores"][0]) < 1.0
    status, error = sglang("/generate", text="a", sampling_params={"max_tokens": 1})
    assert status == 400
    assert "unknown field `max_tokens`" in error["error"]["message"]


def test_llamacpp_shows_the_models_own_or_the_samplers_but_not_the_grammars(asking: dict[str, Asking]) -> None:
    body = {"prompt": [0, 288, 413], "n_predict": 1, "n_probs": 8, "grammar": "root ::= [0-1]", "temperature": 0.5}
    options = {"top_k": 0, "top_p": 1.0, "min_p": 0.0, "seed": 1}
    _, before = asking["llamacpp"]("/completion", **body, **options)
    _, after = asking["llamacpp"]("/completion", **body, **options, post_sampling_probs=True)
    assert before["content"] in "01"
    shown = [row["token"] for row in before["completion_probabilities"][0]["top_logprobs"]]
    assert not set(shown) <= {"0", "1"}
    assert [row["token"] for row in after["completion_probabilities"][0]["top_probs"]] == shown


def test_ollama_cuts_silently_streams_and_is_silent_about_the_end(asking: dict[str, Asking], bench: Bench) -> None:
    ollama = asking["ollama"]
    long = [{"role": "user", "content": "far away " * 1500}]
    base = {"model": "tiny", "messages": long, "stream": False, "options": {"num_predict": 1}}
    status, answer = ollama("/api/chat", **base)
    assert (status, answer["prompt_eval_count"]) == (200, bench.engine.context)
    status, answer = ollama("/api/chat", **base, truncate=False)
    assert (status, answer["error"]) == (400, "the input length exceeds the context length")
    status, text = ollama("/api/chat", model="tiny", messages=CHAT, options={"num_predict": 2})
    assert [line for line in text.splitlines() if line][1:]
    more = {"logprobs": True, "top_logprobs": 4, "format": {"enum": [0]}, "stream": False}
    _, answer = ollama("/api/chat", model="tiny", messages=CHAT, options={"num_predict": 2}, **more)
    assert [row["token"] for row in answer["logprobs"]] == ["0"]
    assert len(answer["logprobs"][0]["top_logprobs"]) == 4
    assert ollama("/api/chat", model="other", messages=CHAT)[0] == 404


def test_openai_refuses_what_it_does_not_know(asking: dict[str, Asking]) -> None:
    openai = asking["openai"]
    chat = {"model": "tiny", "messages": CHAT, "max_tokens": 1}
    status, answer = openai("/v1/chat/completions", **chat, top_k=1)
    assert (status, answer["error"]["code"]) == (400, "unknown_parameter")
    assert openai("/v1/chat/completions", **chat, logprobs=True, top_logprobs=21)[0] == 400
    assert openai("/v1/chat/completions", **chat, top_logprobs=2)[0] == 400
    status, answer = openai("/v1/chat/completions", **chat, logprobs=True, top_logprobs=20)
    assert len(answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]) == 20
