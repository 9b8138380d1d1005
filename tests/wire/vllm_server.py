"""What vLLM's routes answer. Sources and traps: see tests/wire/vllm.py."""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from uuid import uuid4

from tests.wire.controls import Controls
from tests.wire.engine import Engine, Step
from tests.wire.vllm_protocol import (
    Body,
    ChatBody,
    CompletionBody,
    RefusedError,
    TokenizeBody,
    constraint_of,
    sampling_of,
)

VERSION = "0.32.0"
FORBIDDEN = -9999.0


class VLLMServer:
    """Answers, as dictionaries that become JSON."""

    def __init__(self, engine: Engine, controls: Controls, model: str) -> None:
        self.engine = engine
        self.controls = controls
        self.model = model

    def check_model(self, asked: str | None) -> None:
        if asked is not None and asked != self.model:
            message = f"The model `{asked}` does not exist. Valid aliases: {self.model}."
            raise RefusedError(message, param="model", status=404)

    def tokenize(self, body: TokenizeBody) -> dict[str, Any]:
        self.check_model(body.model)
        if body.messages is not None:
            ids = self._chat_ids(body, bool(body.add_special_tokens))
        elif body.prompt is not None:
            ids = self._encode(body.prompt, body.add_special_tokens is not False)
        else:
            raise RefusedError("2 validation errors: Field required", param="body.prompt")
        names = self.engine.tokenizer.convert_ids_to_tokens(ids) if body.return_token_strs else None
        return {"count": len(ids), "max_model_len": self.engine.context, "tokens": ids, "token_strs": names}

    def complete(self, body: CompletionBody) -> dict[str, Any]:
        self.check_model(body.model)
        if body.logprob_token_ids is not None and body.logprobs is None:
            message = "when using `logprob_token_ids`, `logprobs` must be set. (parameter=logprob_token_ids)"
            raise RefusedError(message, param="logprob_token_ids")
        choices: list[dict[str, Any]] = []
        asked = written = 0
        for ids in map(self._read, self._prompts(body)):
            for steps in self._write(body, ids, body.max_tokens, body.logprobs):
                logprobs = None if body.logprobs is None else self._completion_logprobs(steps, body)
                choice = self._choice(len(choices), steps, ids, body) | {"logprobs": logprobs, "prompt_logprobs": None}
                choices.append(choice | {"text": self._text(steps, body)})
                written += len(steps)
            asked += len(ids)
        return self._answer("cmpl", "text_completion", choices, asked, written)

    def chat(self, body: ChatBody) -> dict[str, Any]:
        self.check_model(body.model)
        top = body.top_logprobs or 0
        for name, wanted in (("top_logprobs", top > 0), ("logprob_token_ids", bool(body.logprob_token_ids))):
            if wanted and not body.logprobs:
                message = f"when using `{name}`, `logprobs` must be set to true. (parameter={name})"
                raise RefusedError(message, param=name)
        ids = self._read(self._chat_ids(body, body.add_special_tokens))
        choices: list[dict[str, Any]] = []
        written = 0
        limit = body.max_completion_tokens if body.max_completion_tokens is not None else body.max_tokens
        for steps in self._write(body, ids, limit, top if body.logprobs else None):
            content = [self._chat_logprob(step, top, body) for step in steps] if body.logprobs else None
            said: dict[str, Any] = {"role": "assistant", "content": self._text(steps, body)}
            said |= dict.fromkeys(("refusal", "annotations", "audio", "function_call", "reasoning"))
            logprobs = None if content is None or self.controls.drop_logprobs else {"content": content}
            choice = self._choice(len(choices), steps, ids, body) | {"message": said, "logprobs": logprobs}
            prompt_ids = choice.pop("prompt_token_ids")
            choices.append(choice)
            written += len(steps)
        answer = self._answer("chatcmpl", "chat.completion", choices, len(ids), written)
        return answer | {"prompt_logprobs": None, "prompt_token_ids": prompt_ids, "prompt_text": None}

    def _read(self, ids: list[int]) -> list[int]:
        return self.controls.read(ids, self.engine.text(ids, skip_special=False), self.engine.begin_id)

    def _write(self, body: Body, ids: list[int], limit: int | None, logprobs: int | None) -> list[list[Step]]:
        room = self.engine.context - len(ids)
        if room < 0:
            raise RefusedError(
                f"This model's maximum context length is {self.engine.context} tokens. However, your prompt contains "
                f"at least {len(ids)} input tokens, which exceeds this limit even without any output tokens. Please "
                f"reduce the length of the input prompt. (parameter=input_tokens, value={len(ids)})",
                param="input_tokens",
            )
        limit = room if limit is None else min(limit, room)
        if limit < 1:
            raise RefusedError(
                f"max_tokens must be at least 1, got {limit}. (parameter=max_tokens)", param="max_tokens"
            )
        sampling, constraint = sampling_of(body, logprobs, self.engine.vocabulary), constraint_of(body)
        if self.controls.ignore_constraint:
            sampling, constraint = replace(sampling, allowed_ids=None), None
        return [self.engine.write(ids, limit, sampling, constraint) for _ in range(body.n or 1)]

    def _prompts(self, body: CompletionBody) -> list[list[int]]:
        prompt = body.prompt
        if prompt is None or prompt == "":
            message = "Either prompt or prompt_embeds must be provided and non-empty. (parameter=prompt)"
            raise RefusedError(message, param="prompt")
        if isinstance(prompt, str):
            return [self._encode(prompt, body.add_special_tokens)]
        if not prompt:
            raise RefusedError("You must pass at least one prompt")
        several = prompt if isinstance(prompt[0], (str, list)) else [prompt]
        found = [self._encode(p, body.add_special_tokens) if isinstance(p, str) else list(p) for p in several]
        for ids in found:
            if unknown := [i for i in ids if i >= self.engine.vocabulary]:
                raise RefusedError(f"Token id {max(unknown)} is out of vocabulary")
        return found

    def _chat_ids(self, body: ChatBody | TokenizeBody, add_special: bool) -> list[int]:
        if body.add_generation_prompt and body.continue_final_message:
            message = "Cannot set both `continue_final_message` and `add_generation_prompt` to True."
            raise RefusedError(message)
        if not body.messages:
            message = "Cannot apply chat template to an empty conversation. Provide at least one message."
            raise RefusedError(message)
        text = self.engine.chat(
            body.messages,
            answer=body.add_generation_prompt,
            go_on=body.continue_final_message,
            **(body.chat_template_kwargs or {}),
        )
        return self._encode(text, add_special)

    def _encode(self, text: str, add_special: bool) -> list[int]:
        try:
            return self.engine.encode(text, add_special=add_special)
        except (TypeError, UnicodeEncodeError) as error:
            raise RefusedError(str(error)) from error

    def _text(self, steps: Sequence[Step], body: Body) -> str:
        return self.engine.text([step.token for step in steps], skip_special=body.skip_special_tokens)

    def _shown(self, step: Step, count: int, body: Body) -> dict[int, float]:
        """Log-probabilities by token: the drawn one, then the named ones or the `count` best."""
        others = body.logprob_token_ids or step.constrained.topk(count).indices.tolist()
        return {i: max(float(step.constrained[i]), FORBIDDEN) for i in dict.fromkeys([step.token, *others])}

    def _name(self, token: int, body: Body) -> str:
        if body.return_tokens_as_token_ids:
            return f"token_id:{token}"
        piece = self.engine.piece(token)
        return "" if "\ufffd" in piece else piece

    def _completion_logprobs(self, steps: Sequence[Step], body: CompletionBody) -> dict[str, Any] | None:
        if self.controls.drop_logprobs:
            return None
        shown = [self._shown(step, body.logprobs or 0, body) for step in steps]
        names = [self._name(step.token, body) for step in steps]
        return {
            "text_offset": [sum(map(len, names[:i])) for i in range(len(names))],
            "token_logprobs": [row[step.token] for row, step in zip(shown, steps, strict=True)],
            "tokens": names,
            "top_logprobs": [{self._name(i, body): value for i, value in row.items()} for row in shown],
        }

    def _chat_logprob(self, step: Step, top: int, body: ChatBody) -> dict[str, Any]:
        shown = self._shown(step, top, body)
        rows = []
        for token, value in shown.items():
            name = self._name(token, body)
            rows.append({"token": name, "logprob": value, "bytes": list(name.encode())})
        # Named tokens are all shown; of the best, so many as were asked for, the drawn one counted.
        return rows[0] | {"top_logprobs": rows if body.logprob_token_ids else rows[:top]}

    def _choice(self, index: int, steps: Sequence[Step], prompt: list[int], body: Body) -> dict[str, Any]:
        ended = bool(steps) and steps[-1].token == self.engine.end_id and not body.ignore_eos
        return {
            "index": index,
            "finish_reason": "stop" if ended else "length",
            "stop_reason": None,
            "token_ids": [step.token for step in steps] if body.return_token_ids else None,
            "prompt_token_ids": prompt if body.return_token_ids else None,
            "routed_experts": None,
        }

    def _answer(
        self, prefix: str, kind: str, choices: Sequence[dict[str, Any]], asked: int, written: int
    ) -> dict[str, Any]:
        usage = {"prompt_tokens": asked, "total_tokens": asked + written, "completion_tokens": written}
        return {
            "id": f"{prefix}-{uuid4().hex[:16]}",
            "object": kind,
            "created": int(time.time()),
            "model": self.model,
            "choices": choices,
            "service_tier": None,
            "system_fingerprint": f"vllm-{VERSION}-tiny",
            "usage": usage | {"prompt_tokens_details": None, "completion_tokens_details": None},
            "kv_transfer_params": None,
            "ec_transfer_params": None,
            "metrics": None,
        }
