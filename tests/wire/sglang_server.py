"""What SGLang's routes answer. Sources and traps: see tests/wire/sglang.py."""

from typing import Any
from uuid import uuid4

from torch import Tensor

from tests.wire.controls import Controls
from tests.wire.engine import Engine, Step
from tests.wire.sglang_protocol import (
    DetokenizeBody,
    GenerateBody,
    NativeError,
    OpenAIError,
    SamplingParams,
    ScoreBody,
    TokenizeBody,
    constraint_of,
    params_of,
    sampling_of,
)

LOWEST = -3.4028234663852886e38  # an infinity is no JSON


class SGLangServer:
    """Answers, as dictionaries that become JSON."""

    def __init__(self, engine: Engine, controls: Controls, *, deterministic: bool) -> None:
        self.engine = engine
        self.controls = controls
        self._deterministic = deterministic

    def tokenize(self, body: TokenizeBody) -> dict[str, Any]:
        add_special = body.add_special_tokens
        if body.messages is not None:
            text = self.engine.chat(
                body.messages,
                answer=body.add_generation_prompt is not False and not body.continue_final_message,
                go_on=body.continue_final_message,
                **(body.chat_template_kwargs or {}),
            )
            ids: Any = self._encode(text, bool(add_special))
        elif isinstance(body.prompt, str):
            ids = self._encode(body.prompt, add_special is not False)
        else:
            ids = [self._encode(text, add_special is not False) for text in body.prompt or []]
            return {"tokens": ids, "count": list(map(len, ids)), "max_model_len": self.engine.context}
        return {"tokens": ids, "count": len(ids), "max_model_len": self.engine.context}

    def detokenize(self, body: DetokenizeBody) -> dict[str, Any]:
        lists = [ids for ids in body.tokens if isinstance(ids, list)]
        plain = [i for i in body.tokens if isinstance(i, int)]
        texts = [self.engine.text(ids, skip_special=body.skip_special_tokens) for ids in lists or [plain]]
        return {"text": texts if lists else texts[0]}

    def generate(self, body: GenerateBody) -> Any:
        if (body.text is None) == (body.input_ids is None):
            raise NativeError("Either text, input_ids or input_embeds should be provided.")
        if body.text is not None:
            single = isinstance(body.text, str)
            texts = [body.text] if isinstance(body.text, str) else body.text
            prompts = [self._encode(text, add_special=True) for text in texts]
        else:
            assert body.input_ids is not None
            several = [ids for ids in body.input_ids if isinstance(ids, list)]
            single = not several
            prompts = several or [[i for i in body.input_ids if isinstance(i, int)]]
        answers = [self._generate_one(body, i, ids, single=single) for i, ids in enumerate(prompts)]
        return answers[0] if single else answers

    def _generate_one(self, body: GenerateBody, place: int, ids: list[int], *, single: bool) -> dict[str, Any]:
        def own(value: Any) -> Any:
            return value if single or not isinstance(value, list) else value[place]

        params = params_of(own(body.sampling_params))
        ids = self._read(ids)
        steps = self._write(ids, params)
        wanted = own(body.token_ids_logprob)
        if not single and wanted and not isinstance(wanted, list):
            wanted = body.token_ids_logprob  # a flat list stands for each prompt
        tokens = [step.token for step in steps]
        ended = bool(steps) and steps[-1].token == self.engine.end_id and not params.ignore_eos
        meta: dict[str, Any] = {
            "id": uuid4().hex,
            "finish_reason": {"type": "stop", "matched": tokens[-1]}
            if ended
            else {"type": "length", "length": len(tokens)},
            "prompt_tokens": len(ids),
            "weight_version": "default",
            "num_retractions": 0,
        }
        if own(body.return_logprob) and not self.controls.drop_logprobs:
            meta |= self._logprobs(
                steps, own(body.top_logprobs_num) or 0, wanted, texts=bool(body.return_text_in_logprobs)
            )
        meta |= {"completion_tokens": len(tokens), "cached_tokens": 0, "e2e_latency": 0.01}
        shown = tokens[:-1] if ended else tokens
        text = self.engine.text(shown, skip_special=params.skip_special_tokens is not False)
        return {"text": text, "output_ids": tokens, "meta_info": meta}

    def _logprobs(self, steps: list[Step], top: int, wanted: Any, *, texts: bool) -> dict[str, Any]:
        if wanted is not None:
            self._check_ids(wanted)

        def row(logprobs: Tensor, tokens: list[int]) -> list[list[Any]]:
            return [[max(float(logprobs[i]), LOWEST), i, self.engine.piece(i) if texts else None] for i in tokens]

        found: dict[str, Any] = {
            "input_token_logprobs": [],
            "output_token_logprobs": [row(step.final, [step.token])[0] for step in steps],
            "output_token_logprobs_length": len(steps),
        }
        if top > 0:
            best = [row(step.final, step.final.topk(top).indices.tolist()) for step in steps]
            found |= {"input_top_logprobs": [], "output_top_logprobs": best}
        if wanted is not None:
            named = [row(step.final, wanted) for step in steps]
            found |= {"input_token_ids_logprobs": [], "output_token_ids_logprobs": named}
        return found

    def score(self, body: ScoreBody) -> dict[str, Any]:
        if body.label_token_ids is None:
            raise OpenAIError("label_token_ids is required for generation (CausalLM) models.")
        if body.items is None:
            raise OpenAIError("items must be provided")
        if body.temperature != 1.0 and not body.apply_softmax:
            raise OpenAIError("temperature requires apply_softmax=True")
        items: list[Any] = [body.items] if isinstance(body.items, str) else list(body.items)
        labels = self._labels(body.label_token_ids, len(items))
        scores, logprobs, asked = [], [], 0
        for item, tokens in zip(items, labels, strict=True):
            ids = self._read(self._joined(body, item))
            self._check_length(ids)
            row = self.engine.logprobs(ids)[tokens]
            scores.append(((row / body.temperature).softmax(-1) if body.apply_softmax else row.exp()).tolist())
            logprobs.append(row.tolist())
            asked += len(ids)
        return {
            "scores": [] if self.controls.drop_logprobs else scores,
            "pooled_hidden_states": None,
            "token_logprobs": logprobs if body.return_token_logprobs else None,
            "model": body.model,
            "usage": {
                "prompt_tokens": asked,
                "total_tokens": asked,
                "completion_tokens": 0,
                "prompt_tokens_details": None,
            },
            "object": "scoring",
        }

    def _joined(self, body: ScoreBody, item: str | list[int]) -> list[int]:
        query = body.query if body.query is not None else ("" if isinstance(item, str) else [])
        if isinstance(query, str) and isinstance(item, str):
            return self._encode(item + query if body.item_first else query + item, add_special=True)
        if isinstance(query, list) and isinstance(item, list):
            return item + query if body.item_first else query + item
        raise OpenAIError("Invalid combination of query/items types for score_request.")

    def _labels(self, given: list[int] | list[list[int]], items: int) -> list[list[int]]:
        if not given:
            raise OpenAIError("label_token_ids must be a nonempty list")
        shared = [i for i in given if isinstance(i, int)]
        labels = [shared] * items if shared else [tokens for tokens in given if isinstance(tokens, list)]
        if len(labels) != items:
            raise OpenAIError("label_token_ids must have one list per item")
        plain = int(self.engine.tokenizer.vocab_size)
        for tokens in labels:
            if len(set(tokens)) != len(tokens):
                raise OpenAIError("label_token_ids must not contain duplicate tokens")
            for token in tokens:
                if not 0 <= token < plain:
                    raise OpenAIError(f"Token ID {token} is out of vocabulary (vocab size: {plain})")
        return labels

    def _check_ids(self, wanted: Any) -> None:
        for token in wanted:
            if not isinstance(token, int):
                raise NativeError("token_ids_logprob must be a flat list of integers.")
            if not 0 <= token < self.engine.vocabulary:
                span = f"valid range is [0, {self.engine.vocabulary})."
                raise NativeError(f"token_ids_logprob contains out-of-vocabulary token id {token}; {span}")

    def _read(self, ids: list[int]) -> list[int]:
        return self.controls.read(ids, self.engine.text(ids, skip_special=False), self.engine.begin_id)

    def _check_length(self, ids: list[int]) -> None:
        if len(ids) >= self.engine.context:
            raise NativeError(
                f"The input ({len(ids)} tokens) is longer than the model's context length "
                f"({self.engine.context} tokens)."
            )

    def _write(self, ids: list[int], params: SamplingParams) -> list[Step]:
        self._check_length(ids)
        count = params.max_new_tokens if params.max_new_tokens is not None else self.engine.context - len(ids)
        if len(ids) + count > self.engine.context:
            raise NativeError(
                f"Requested token count exceeds the model's maximum context length of {self.engine.context} tokens. "
                f"You requested a total of {len(ids) + count} tokens"
            )
        constraint = None if self.controls.ignore_constraint else constraint_of(params)
        return self.engine.write(ids, count, sampling_of(params, deterministic=self._deterministic), constraint)

    def _encode(self, text: str, add_special: bool) -> list[int]:
        try:
            return self.engine.encode(text, add_special=add_special)
        except (TypeError, UnicodeEncodeError) as error:
            raise OpenAIError(f"Internal server error: {error}", "InternalServerError", 500) from error
