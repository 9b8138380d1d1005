"""Ollama's dialect, written from its sources and documentation: 0.12.11 or later, which gives log-probabilities.

- `/api/chat` with `logprobs` and `top_logprobs` 20. They are a softmax of the raw logits: neither the sampling options
  nor a `format` change them. A token without text, such as the end, comes without log-probabilities: the most
  probable token is asked for, not one that is drawn.
- Sample: a `format` that is a JSON string of the answers' pattern, so that the answer comes in quotes.
- `truncate` and `shift` are off: by default a prompt beyond the context loses its beginning without a word.
- Every sampling option is sent: what is left out comes from the model's Modelfile. `think` is off where a model can.
- The revision is the digest of the model (`/api/tags`).
"""

import json
from typing import Any

from services.teacher.judges.remote.chat import TOP, Ask, ChatDialect, by_text, need_model
from services.teacher.judges.remote.dialect import Description, DialectError, Draw, Sampled
from services.teacher.judges.remote.fields import as_dict, limit_at, rows, text_at

QUOTES = 4  # tokens that an answer may have besides its own: quotes, white space, the end
NEUTRAL = {"top_k": 0, "top_p": 1.0, "min_p": 0.0, "repeat_penalty": 1.0}


class OllamaDialect(ChatDialect):
    """See the module."""

    backend = "ollama"
    constrains = True
    temperature_to_look = 0.0
    _thinks = False

    async def describe(self) -> Description:
        """See `Dialect`."""
        name = need_model(self.model)
        held = {text_at(model, "name"): as_dict(model) for model in rows(await self.http.get("/api/tags"), "models")}
        found = held.get(name) or held.get(f"{name}:latest")
        if found is None:
            raise DialectError(
                f"{self.http.url} has no model {name!r}; it has {sorted(held)}: run 'ollama pull {name}'"
            )
        shown = as_dict(await self.http.post("/api/show", {"model": name}))
        self._thinks = "thinking" in (shown.get("capabilities") or ())
        version = text_at(await self.http.get("/api/version"), "version")
        digest = str(found.get("digest") or "unknown").removeprefix("sha256:")[:12]
        return Description(name, f"{digest}+ollama-{version}", await self._context(name))

    async def complete(self, ask: Ask, shape: dict[str, Any] | None = None) -> tuple[str, list[Any]]:
        """See `ChatDialect`; the answer is JSON of a shape, if one is given."""
        options = {**NEUTRAL, "num_predict": ask.max_tokens, "temperature": ask.temperature, "seed": ask.seed}
        asked = {
            "model": self.model,
            "messages": ask.messages,
            "stream": False,
            "truncate": False,
            "shift": False,
            "logprobs": True,
            "top_logprobs": TOP,
            "options": options,
        }
        if shape is not None:
            asked["format"] = shape
        if self._thinks:
            asked["think"] = False
        answer = as_dict(await self.http.post("/api/chat", asked))
        return text_at(answer, "message", "content"), answer.get("logprobs") or []

    async def sample(self, prompt: Any, draw: Draw) -> Sampled:
        """See `Dialect`."""
        shape = {"type": "string", "pattern": f"^{' '.join([draw.sign] * draw.criteria)}$"}
        ask = Ask(prompt, draw.max_tokens + QUOTES, draw.temperature, draw.seed)
        text, tokens = await self.complete(ask, shape)
        try:
            answer = json.loads(text)
        except ValueError:
            answer = text
        return Sampled(answer if isinstance(answer, str) else text, by_text(tokens))

    async def _context(self, name: str) -> int | None:
        """The context that the model was loaded with, where it is loaded: less than what the model could have."""
        for model in rows(await self.http.get("/api/ps"), "models"):
            if as_dict(model).get("name") in (name, f"{name}:latest"):
                return limit_at(as_dict(model), "context_length")
        return None
