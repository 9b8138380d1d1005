"""Stories written by a checkpoint with plain `transformers` generation."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from services.evaluator.errors import CheckpointError
from services.evaluator.texts import word_count


@dataclass(frozen=True, slots=True)
class WrittenStory:
    """A story without its prompt and without special tokens. `ended`: the model closed it itself.

    `surprisal`: -log p, in nats, of all `tokens` sampled, the end token among them.
    """

    text: str
    words: int
    tokens: int
    ended: bool
    surprisal: float


class _Recorder(LogitsProcessor):
    """Keeps the log-probability of every sampled token; the distribution stays as it is.

    Its call at a step sees what was sampled at the step before, so the last step's is taken at the end.
    """

    def __init__(self) -> None:
        self._before_BV: torch.Tensor | None = None
        self._sampled: list[torch.Tensor] = []

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        self._note(input_ids)
        self._before_BV = torch.log_softmax(scores, dim=-1)
        return scores

    def logprobs(self, output_BT: torch.Tensor) -> torch.Tensor:
        """(B, sampled steps), nats; meaningless behind a story's end token."""
        self._note(output_BT)
        return torch.stack(self._sampled, dim=1)

    def _note(self, ids_BT: torch.Tensor) -> None:
        if self._before_BV is not None:
            self._sampled.append(self._before_BV.gather(1, ids_BT[:, -1:]).squeeze(1))


def write_stories(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt: str,
    *,
    stories: int,
    seed: int,
    max_new_tokens: int = 90,
    batch_size: int = 50,
    done: Callable[[int, int], None],
) -> list[WrittenStory]:
    """Sample `stories` continuations of `prompt` at temperature 1 from the whole distribution.

    The same seed, batch size and machine give the same stories; the process's random state is left as it was.

    Raises:
        CheckpointError: the prompt and the story do not fit the context, or the checkpoint names no end token.
    """
    eos = tokenizer.eos_token_id
    if not isinstance(eos, int):
        raise CheckpointError("the checkpoint's tokenizer has no end token, so no story could end; set eos_token")
    pad = tokenizer.pad_token_id if isinstance(tokenizer.pad_token_id, int) else eos
    encoded = tokenizer(prompt, return_tensors="pt")
    length = int(encoded["input_ids"].shape[1])
    context = getattr(model.config, "max_position_embeddings", None)
    if context is not None and length + max_new_tokens > context:
        raise CheckpointError(
            f"a prompt of {length} tokens and {max_new_tokens} new ones do not fit the checkpoint's context of "
            f"{context}; shorten the prompt or lower max_new_tokens"
        )
    config = GenerationConfig(
        do_sample=True,
        temperature=1.0,
        top_p=1.0,
        top_k=0,
        max_new_tokens=max_new_tokens,
        eos_token_id=eos,
        pad_token_id=pad,
    )
    generate: Callable[..., torch.Tensor] = cast(Any, model).generate  # typed as any of five outputs
    written: list[WrittenStory] = []
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), torch.inference_mode():
        torch.manual_seed(seed)
        while len(written) < stories:
            rows = min(batch_size, stories - len(written))
            inputs_BT = encoded["input_ids"].repeat(rows, 1).to(model.device)
            recorder = _Recorder()
            output_BT = generate(
                inputs_BT,
                attention_mask=torch.ones_like(inputs_BT),
                generation_config=config,
                logits_processor=LogitsProcessorList([recorder]),
            )
            ids, logprobs = output_BT[:, length:].tolist(), recorder.logprobs(output_BT).tolist()
            written += [_story(tokenizer, row, sampled, eos) for row, sampled in zip(ids, logprobs, strict=True)]
            done(len(written), stories)
    return written


def _story(tokenizer: PreTrainedTokenizerBase, ids: list[int], logprobs: list[float], eos: int) -> WrittenStory:
    ended = eos in ids
    own = ids[: ids.index(eos) + 1] if ended else ids
    text = str(tokenizer.decode(own, skip_special_tokens=True)).strip()
    surprisal = -sum(logprobs[: len(own)])
    return WrittenStory(text=text, words=word_count(text), tokens=len(own), ended=ended, surprisal=surprisal)
