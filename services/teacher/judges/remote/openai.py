"""OpenAI's dialect, and whatever speaks its chat API and gives log-probabilities. Written from its API reference.

- `/chat/completions` with `logprobs` and `top_logprobs` 20, temperature 1 for log-probabilities. Whether they are taken
  before or after the temperature is not documented; at 1 it makes no difference.
- The length limit is `max_completion_tokens` or `max_tokens`: one of them is refused or unknown somewhere. The first
  where the server is OpenAI's, the second elsewhere, and the other one where the server refuses that.
- Reasoning models give no log-probabilities, and are refused for it by the probe.
- The revision is the name under which the server answers, such as a dated one. It is no promise: hosted models change.
"""

from typing import Any
from urllib.parse import urlsplit

from services.teacher.judges.remote.chat import TOP, Ask, ChatDialect, need_model
from services.teacher.judges.remote.dialect import Description
from services.teacher.judges.remote.fields import as_dict, field, text_at
from services.teacher.judges.remote.http import Http, RequestRefusedError

LIMITS = ("max_completion_tokens", "max_tokens")


class OpenaiDialect(ChatDialect):
    """See the module."""

    backend = "openai"

    def __init__(self, http: Http, model: str | None) -> None:
        super().__init__(http, model)
        self._limit = LIMITS[0] if urlsplit(http.url).hostname == "api.openai.com" else LIMITS[1]

    async def describe(self) -> Description:
        """See `Dialect`: by asking for one token, since not every server lists its models."""
        name = need_model(self.model)
        answer = as_dict(await self._ask(Ask([{"role": "user", "content": "Hello."}], 1, 1.0, 0)))
        return Description(name, str(answer.get("model") or name), None)

    async def complete(self, ask: Ask) -> tuple[str, list[Any]]:
        """See `ChatDialect`."""
        choice = as_dict(field(await self._ask(ask), "choices", 0))
        logprobs = choice.get("logprobs")
        tokens = logprobs.get("content") if isinstance(logprobs, dict) else None
        refusal = as_dict(choice["message"]).get("refusal") if "message" in choice else None
        return str(refusal) if refusal else text_at(choice, "message", "content"), tokens or []

    async def _ask(self, ask: Ask) -> Any:
        body = {
            "model": self.model,
            "messages": ask.messages,
            "temperature": ask.temperature,
            "top_p": 1.0,
            "seed": ask.seed,
            "logprobs": True,
            "top_logprobs": TOP,
        }
        try:
            return await self.http.post("/chat/completions", {**body, self._limit: ask.max_tokens})
        except RequestRefusedError as error:
            other = LIMITS[1 - LIMITS.index(self._limit)]
            if self._limit not in str(error):
                raise
            self._limit = other
            return await self.http.post("/chat/completions", {**body, other: ask.max_tokens})
