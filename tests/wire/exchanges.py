"""Questions for a product and for our server of its kind, so that the answers can be compared: status, keys and types.

`python -m tests.wire.exchanges PRODUCT URL` asks a real server that serves the folder of `make_judge_folder` (under the
name `tiny`, where it has names) and prints what it answered; tests/wire/recordings holds what came of that.
"""

import json
import sys
from dataclasses import dataclass
from typing import Any

import httpx

CHAT = [{"role": "system", "content": "Grade."}, {"role": "user", "content": "The fox ran."}]
IDS = [0, 1, 87, 93, 264, 73, 81, 2, 203, 203, 417, 18, 3]
DIGITS = [20, 21, 22, 23]  # the tokens 0, 1, 2 and 3
MAPS = ("top_logprobs",)  # dictionaries whose keys are data
# What a judge has no use for.
UNSEEN = ("generation_settings", "timings", "params", "chat_template_caps", "meta")


@dataclass(frozen=True)
class Exchange:
    """One question; `body` is sent as JSON, `raw` as it is."""

    name: str
    path: str
    body: Any = None
    raw: str | None = None

    def ask(self, client: httpx.Client) -> dict[str, Any]:
        """The answer: status, and the body as JSON or text."""
        if self.body is None and self.raw is None:
            answer = client.get(self.path)
        else:
            content = self.raw if self.raw is not None else json.dumps(self.body)
            answer = client.post(self.path, content=content, headers={"content-type": "application/json"})
        try:
            body: Any = answer.json()
        except ValueError:
            body = answer.text
        return {"name": self.name, "status": answer.status_code, "body": body}


def shape(value: Any) -> Any:
    """What kind of value it is: keys with their shapes, the first item of a list, the names of plain types."""
    if isinstance(value, dict):
        return {key: _shape_at(key, item) for key, item in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    if isinstance(value, bool) or value is None:
        return "null" if value is None else "boolean"
    return "number" if isinstance(value, (int, float)) else "text"


def _shape_at(key: str, value: Any) -> Any:
    if key in UNSEEN:
        return "unseen"
    if key in MAPS and isinstance(value, list) and value and isinstance(value[0], dict) and "token" not in value[0]:
        return [["map", *{str(shape(item)) for item in value[0].values()}]]
    return shape(value)


def _vllm() -> list[Exchange]:
    def complete(name: str, **more: Any) -> Exchange:
        return Exchange(name, "/v1/completions", {"model": "tiny", "prompt": IDS, "max_tokens": 1} | more)

    def chat(name: str, **more: Any) -> Exchange:
        return Exchange(name, "/v1/chat/completions", {"model": "tiny", "messages": CHAT, "max_tokens": 1} | more)

    def tokenize(name: str, **more: Any) -> Exchange:
        return Exchange(name, "/tokenize", {"model": "tiny"} | more)

    named = {"logprobs": 0, "logprob_token_ids": DIGITS}
    go_on = {"add_generation_prompt": False, "continue_final_message": True}
    begun = [*CHAT, {"role": "assistant", "content": "2 1"}]
    return [
        Exchange("models", "/v1/models"),
        Exchange("version", "/version"),
        Exchange("health", "/health"),
        Exchange("no such page", "/nothing", {}),
        Exchange("no such method", "/v1/chat/completions"),
        tokenize("tokenize a chat", messages=CHAT),
        tokenize("tokenize a chat that goes on", messages=begun, return_token_strs=True, **go_on),
        tokenize("tokenize a chat, both ways", messages=CHAT, add_generation_prompt=True, continue_final_message=True),
        tokenize("tokenize a text", prompt="<|eot_id|>2 1", return_token_strs=True),
        tokenize("tokenize a text alone", prompt="2 1", add_special_tokens=False),
        tokenize("tokenize nothing"),
        tokenize("tokenize a lone surrogate", prompt="a\ud800b"),
        Exchange("tokenize for another model", "/tokenize", {"model": "x", "prompt": "a"}),
        Exchange("detokenize", "/detokenize", {"model": "tiny", "tokens": IDS}),
        complete("complete", logprobs=3, temperature=0),
        complete("complete two", prompt=[IDS, [*IDS, 20]], logprobs=2, allowed_token_ids=DIGITS, return_token_ids=True),
        complete("complete, named tokens", temperature=0, **named),
        complete("complete, named tokens as ids", return_tokens_as_token_ids=True, allowed_token_ids=DIGITS, **named),
        complete("complete, named tokens without logprobs", logprob_token_ids=DIGITS),
        complete("complete, unknown named token", logprobs=1, logprob_token_ids=[99999]),
        complete("complete, too many named tokens", logprobs=1, logprob_token_ids=list(range(129))),
        complete("complete, unknown allowed token", allowed_token_ids=[99999]),
        complete("complete, unknown prompt token", prompt=[0, 99999]),
        complete("complete nothing", prompt=[]),
        complete("complete an empty text", prompt=""),
        complete("complete a text", prompt="The fox", return_token_ids=True),
        complete("complete no token", max_tokens=0),
        complete("complete, 21 logprobs", logprobs=21),
        complete("complete, a regular expression", max_tokens=5, structured_outputs={"regex": "[0-3] [0-3] [0-3]"}),
        complete("complete, two constraints", structured_outputs={"regex": "[0-3]", "choice": ["1"]}),
        complete("complete, broken constraint", structured_outputs={"regex": "[0-3"}),
        complete("complete, unknown constraint", structured_outputs={"rgx": "[0-3]"}),
        complete("complete, constraint of old", logprobs=1, guided_choice=["1"], nobody_knows_this=True),
        complete("complete, too long", prompt=[20] * 2048),
        complete("complete, wrong type", seed="a"),
        complete("complete, temperature below 0", temperature=-1),
        complete("complete, top_p 0", top_p=0),
        complete("complete for another model", model="x"),
        chat("chat", logprobs=True, top_logprobs=3, temperature=0),
        chat("chat, a choice", structured_outputs={"choice": ["0", "1"]}, logprobs=True, top_logprobs=20),
        chat("chat, named tokens", logprobs=True, logprob_token_ids=DIGITS, temperature=0),
        chat("chat, no top", logprobs=True, temperature=0),
        chat("chat, top without logprobs", top_logprobs=4),
        chat("chat, 21 logprobs", logprobs=True, top_logprobs=21),
        chat("chat goes on", messages=begun, return_token_ids=True, **go_on),
        chat("chat, too long", messages=[{"role": "user", "content": "far away " * 3000}]),
        chat("chat of nobody", messages=[]),
        chat("chat of a text", messages="hi"),
        Exchange("chat that is no JSON", "/v1/chat/completions", raw="{not"),
    ]


def _llamacpp() -> list[Exchange]:
    def complete(name: str, **more: Any) -> Exchange:
        return Exchange(name, "/completion", {"prompt": IDS, "n_predict": 1} | more)

    grammar = 'root ::= [0-3] " " [0-3] " " [0-3]'
    seen = {"n_probs": 4, "temperature": 0.2, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
    begun = [*CHAT, {"role": "assistant", "content": "2 1"}]
    return [
        Exchange("health", "/health"),
        Exchange("models", "/v1/models"),
        Exchange("props", "/props"),
        Exchange("no such page", "/nothing", {}),
        Exchange("tokenize", "/tokenize", {"content": "<|eot_id|>2 1"}),
        Exchange("tokenize plain", "/tokenize", {"content": "<|eot_id|>2 1", "parse_special": False}),
        Exchange("tokenize with begin", "/tokenize", {"content": "2 1", "add_special": True}),
        Exchange("tokenize with pieces", "/tokenize", {"content": "The fox é", "with_pieces": True}),
        Exchange("tokenize nothing", "/tokenize", {}),
        Exchange("tokenize a number", "/tokenize", {"content": 3}),
        Exchange("detokenize", "/detokenize", {"tokens": [288, 413]}),
        Exchange("template", "/apply-template", {"messages": CHAT}),
        Exchange("template that goes on", "/apply-template", {"messages": begun}),
        Exchange("template of nothing", "/apply-template", {}),
        Exchange("template of nobody", "/apply-template", {"messages": []}),
        complete("complete", temperature=0, n_probs=3, return_tokens=True),
        complete("complete a text", prompt="The fox", temperature=0, n_probs=1, return_tokens=True),
        complete("complete a templated text", prompt="<|begin_of_text|>The fox", temperature=0, n_probs=1),
        complete("complete two", prompt=[IDS, [*IDS, 20]], n_probs=2),
        complete("complete, probabilities before sampling", grammar="root ::= [0-1]", **seen),
        complete("complete, probabilities after sampling", grammar="root ::= [0-1]", post_sampling_probs=True, **seen),
        complete("complete, a grammar", n_predict=8, grammar=grammar, seed=1, temperature=0.2),
        complete("complete, broken grammar", grammar="root ::= [0-3"),
        complete("complete, grammar without root", grammar="leaf ::= [0-3]"),
        complete("complete, a schema", n_predict=4, json_schema={"type": "integer", "minimum": 0, "maximum": 3}),
        complete("complete, unknown key", nobody_knows_this=True),
        complete("complete, wrong type", temperature="warm"),
        complete("complete, many probabilities", n_probs=30, temperature=0),
        complete("complete, no token", n_predict=0),
        complete("complete, unknown token", prompt=[0, 99999]),
        complete("complete, too long", prompt=[20] * 2100),
        complete("complete, an empty text", prompt=""),
        Exchange("complete nothing", "/completion", {"n_predict": 1}),
        Exchange("complete, no JSON", "/completion", raw="{not"),
        Exchange("complete, lone surrogate", "/completion", raw='{"prompt": "a\\ud800b", "n_predict": 1}'),
    ]


EXCHANGES = {"vllm": _vllm(), "llamacpp": _llamacpp()}


def main(product: str, url: str) -> None:
    """Ask and print."""
    with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
        answers = [exchange.ask(client) for exchange in EXCHANGES[product]]
    sys.stdout.write("[\n" + ",\n".join(json.dumps(answer) for answer in answers) + "\n]\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
