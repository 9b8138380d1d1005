"""Why TGI is not asked through huggingface_hub's client: it drops what a judge relies on, and only warns."""

import asyncio
import json
from typing import Any

import pytest
from huggingface_hub import AsyncInferenceClient, TextGenerationInputGrammarType
from huggingface_hub.inference import _common

from tests.remote_helpers import Answer, answering

NOT_TGI = {"error": "The following `model_kwargs` are not used by the model: ['details', 'grammar', 'top_n_tokens']"}
REFUSED: Answer = (400, {}, json.dumps(NOT_TGI))
GENERATED: Answer = (200, {}, json.dumps([{"generated_text": "2"}]))
DIGITS = TextGenerationInputGrammarType(type="regex", value="[0-3]")


def asked(url: str) -> Any:
    """One digit, its details, and the digits beside it: what is a question of a judge."""

    async def ask() -> Any:
        async with AsyncInferenceClient(url) as client:
            return await client.text_generation(
                "Grade:", details=True, grammar=DIGITS, top_n_tokens=4, max_new_tokens=1
            )

    return asyncio.run(ask())


def test_a_bad_answer_of_one_server_unconstrains_every_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_common, "_UNSUPPORTED_TEXT_GENERATION_KWARGS", {})
    bodies: list[bytes] = []
    with (
        answering(lambda number, headers: GENERATED, bodies) as tgi,
        answering(lambda number, headers: GENERATED if number else REFUSED) as other,
    ):
        asked(tgi)
        asked(other)  # its second answer is as it should be
        with pytest.warns(UserWarning, match="not served via TGI"):
            answer = asked(tgi)
    before, after = (json.loads(body)["parameters"] for body in bodies)
    assert before["grammar"] == {"type": "regex", "value": "[0-3]"}
    assert not {"grammar", "details", "top_n_tokens"} & set(after)
    assert answer == "2"
