"""What stands behind every server: a tiny model that tokenises, templates, gives log-probabilities and samples."""

import random
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache

from tests.wire.constraint import Constraint

REMEMBERED = 4096
PREFIXES = 16


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn. Temperature 0 is greedy; the filters are the usual ones, off by default."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repeat_penalty: float = 1.0
    repeat_last_n: int = 64
    seed: int | None = None
    allowed_ids: tuple[int, ...] | None = None
    bias: tuple[tuple[int, float], ...] = ()
    ignore_end: bool = False


@dataclass(frozen=True)
class Step:
    """One written token, and the log-probabilities (V,) in nats that it was drawn from, at three stages."""

    token: int
    raw: Tensor  # the model's own
    constrained: Tensor  # after the grammar, at temperature 1
    final: Tensor  # after the grammar, bias, allowed ids, penalty, temperature and filters


class Engine:
    """A model folder, asked one prompt at a time. Calls may come from many threads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self.model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.context = int(self.model.config.max_position_embeddings)
        self.vocabulary = int(self.model.config.vocab_size)
        self.named_special_ids = frozenset(self.tokenizer.all_special_ids)
        added = self.tokenizer.added_tokens_decoder
        self.special_ids = self.named_special_ids | {i for i, token in added.items() if token.special}
        self.begin_id = int(self.tokenizer.bos_token_id)
        self.begins_each_text = self.tokenizer("a")["input_ids"][0] == self.begin_id
        self.end_id = int(self.tokenizer.eos_token_id)
        self._bytes = [_token_bytes(self.tokenizer, i) for i in range(self.vocabulary)]
        self._pieces = tuple(None if i in self.special_ids else _text(self._bytes[i]) for i in range(self.vocabulary))
        self._encode = lru_cache(maxsize=REMEMBERED)(self._encode_now)
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[int, ...], Tensor] = OrderedDict()
        self._prefixes: list[tuple[Tensor, list[tuple[Tensor, Tensor]]]] = []  # ids; keys and values of each layer

    def encode(self, text: str, *, add_special: bool, parse_special: bool = True) -> list[int]:
        """Token ids. `parse_special`: whether a control token's text becomes that token, as it does in most servers."""
        return list(self._encode(text, add_special, parse_special))

    def _encode_now(self, text: str, add_special: bool, parse_special: bool) -> tuple[int, ...]:
        ids = self.tokenizer(text, add_special_tokens=add_special, split_special_tokens=not parse_special)["input_ids"]
        return tuple(int(i) for i in ids)

    def chat(self, messages: Sequence[dict[str, Any]], *, answer: bool = True, go_on: bool = False, **more: Any) -> str:
        """The chat template's text; `answer`: with the head of the assistant's turn, `go_on`: inside its last one."""
        return str(
            self.tokenizer.apply_chat_template(
                list(messages), tokenize=False, add_generation_prompt=answer, continue_final_message=go_on, **more
            )
        )

    def bytes_of(self, token: int) -> bytes:
        """What a token stands for; a control token stands for its name."""
        return self._bytes[token]

    def piece(self, token: int) -> str:
        """A token's text, broken characters as U+FFFD."""
        return self._bytes[token].decode(errors="replace")

    def text(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """The text of several tokens, broken characters as U+FFFD."""
        kept = [i for i in ids if not (skip_special and i in self.special_ids)]
        return b"".join(self._bytes[i] for i in kept).decode(errors="replace")

    def logprobs(self, ids: Sequence[int]) -> Tensor:
        """Log-probabilities (V,) in nats of the token after `ids`."""
        key = tuple(ids)
        with self._lock:
            if key not in self._known:
                self._known[key] = self._after(torch.tensor(key))
                if len(self._known) > REMEMBERED:
                    self._known.popitem(last=False)
            return self._known[key]

    def prompt_logprobs(self, ids: Sequence[int]) -> Tensor:
        """Log-probabilities (T, V) in nats of the token after each of the T `ids`."""
        with self._lock, torch.inference_mode():
            return _logprobs(self.model(torch.tensor([list(ids)])).logits[0])

    def write(
        self,
        ids: Sequence[int],
        count: int,
        sampling: Sampling,
        constraint: Constraint | None = None,
        *,
        grammar_last: bool = False,
    ) -> list[Step]:
        """At most `count` tokens after `ids`; the last one is the end token where the model, or the grammar, ends.

        `grammar_last`: a token is drawn without the grammar, and drawn again only where the grammar forbids it.
        """
        random_numbers = random.Random(sampling.seed)
        steps: list[Step] = []
        while len(steps) < count:
            written = [*ids, *(step.token for step in steps)]
            raw = self.logprobs(written)
            constrained = self._constrain(raw, [step.token for step in steps], constraint)
            final = _filter(raw if grammar_last else constrained, sampling, written)
            token = _draw(final, sampling, random_numbers)
            if constrained[token] == -torch.inf:
                final = _filter(constrained, sampling, written)
                token = _draw(final, sampling, random_numbers)
            steps.append(Step(token, raw, constrained, final))
            if steps[-1].token == self.end_id and not sampling.ignore_end:
                break
        return steps

    def _constrain(self, logprobs: Tensor, written: Sequence[int], constraint: Constraint | None) -> Tensor:
        if constraint is None:
            return logprobs
        so_far = self.text(written)
        allowed = torch.tensor(constraint.allowed(so_far, self._pieces))
        allowed[self.end_id] = constraint.complete(so_far)
        return logprobs.masked_fill(~allowed, -torch.inf).log_softmax(-1)

    def _after(self, ids: Tensor) -> Tensor:
        """As `logprobs`; keys and values of the longest beginning that was seen before are not computed again."""
        shared = [_common(ids, seen) for seen, _ in self._prefixes]
        best = max(range(len(shared)), key=shared.__getitem__, default=None)
        start, cache = 0, DynamicCache()
        if best is not None:
            start = min(shared[best], len(ids) - 1)
            for layer, (keys, values) in enumerate(self._prefixes[best][1]):
                cache.update(keys[:, :, :start], values[:, :, :start], layer)
        with torch.inference_mode():
            logits = self.model(ids[start:].unsqueeze(0), past_key_values=cache, logits_to_keep=1).logits[0, -1]
        layers: Any = cache.layers
        seen = [(layer.keys, layer.values) for layer in layers]
        self._prefixes = [*self._prefixes[-PREFIXES:], (ids, seen)]
        return _logprobs(logits)


def _logprobs(logits: Tensor) -> Tensor:
    return logits.float().log_softmax(-1)


def _common(left: Tensor, right: Tensor) -> int:
    """How many of the first tokens are the same."""
    length = min(len(left), len(right))
    return int((left[:length] == right[:length]).long().cumprod(0).sum())


def _filter(logprobs: Tensor, sampling: Sampling, written: Sequence[int]) -> Tensor:
    """Bias, allowed ids, penalty, temperature, top-k, top-p and min-p, in that order; normalised again."""
    scores = logprobs.clone()
    for token, bias in sampling.bias:
        scores[token] += bias
    if sampling.allowed_ids is not None:
        forbidden = torch.ones(len(scores), dtype=torch.bool)
        forbidden[list(sampling.allowed_ids)] = False
        scores = scores.masked_fill(forbidden, -torch.inf)
    if sampling.repeat_penalty != 1.0 and sampling.repeat_last_n:
        for token in set(written[-sampling.repeat_last_n :]):
            scores[token] *= sampling.repeat_penalty if scores[token] < 0 else 1 / sampling.repeat_penalty
    if sampling.temperature > 0:
        scores = scores / sampling.temperature
    if sampling.top_k > 0:
        worst = scores.topk(min(sampling.top_k, len(scores))).values[-1]
        scores = scores.masked_fill(scores < worst, -torch.inf)
    if sampling.top_p < 1.0:
        ordered, order = scores.softmax(-1).sort(descending=True)
        beyond = ordered.cumsum(-1) - ordered > sampling.top_p
        scores = scores.masked_fill(torch.zeros_like(beyond).scatter(0, order, beyond), -torch.inf)
    if sampling.min_p > 0.0:
        probabilities = scores.softmax(-1)
        scores = scores.masked_fill(probabilities < sampling.min_p * probabilities.max(), -torch.inf)
    return scores.log_softmax(-1)


def _draw(logprobs: Tensor, sampling: Sampling, random_numbers: random.Random) -> int:
    if sampling.temperature <= 0:
        return int(logprobs.argmax())
    chosen = random_numbers.random()
    return min(int((logprobs.double().exp().cumsum(-1) < chosen).sum()), int(logprobs.nonzero().max()))


def _token_bytes(tokenizer: Any, token: int) -> bytes:
    name = tokenizer.convert_ids_to_tokens(token)
    if name is None:
        return b""
    if token in tokenizer.added_tokens_decoder:
        return str(name).encode()
    return bytes(_BYTES[character] for character in name)


def _text(data: bytes) -> str | None:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


def _byte_characters() -> dict[str, int]:
    """GPT-2's alphabet for bytes: printable ones stand for themselves, the others for characters from U+0100 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}


_BYTES = _byte_characters()
