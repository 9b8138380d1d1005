"""Writing stories from a prompt, one random stream a story."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from services.student_trainer.decoding import decode
from services.student_trainer.sampling import story_uniforms


@dataclass(frozen=True)
class Rollout:
    """Stories as tokens and as text. B stories; P prompt tokens; T = longest response.

    `mask_BT` is 1 on a response's tokens, its end token included, and 0 on padding; it comes from lengths, never from
    comparing ids, so a sampled pad token is a token like any other. `logprobs_BT` are log-probabilities in nats of the
    tokens as they were drawn; 0 where the mask is 0.
    """

    prompt_P: Tensor
    responses_BT: Tensor
    mask_BT: Tensor
    logprobs_BT: Tensor
    ended_B: Tensor
    texts: tuple[str, ...]

    @property
    def sequences_BS(self) -> Tensor:
        """Prompt and response, [B, P + T]."""
        prompt_BP = self.prompt_P[None].expand(len(self.texts), -1)
        return torch.cat([prompt_BP, self.responses_BT], dim=1)

    def saved(self) -> dict[str, Tensor]:
        """Its tensors, on the CPU; the texts follow from them."""
        return {name: value.cpu() for name, value in vars(self).items() if name != "texts"}

    def to(self, device: torch.device) -> "Rollout":
        """The same on another device."""
        tensors = {name: value.to(device) for name, value in vars(self).items() if name != "texts"}
        return replace(self, **tensors)

    @classmethod
    def restored(
        cls, saved: Mapping[str, Tensor], tokenizer: PreTrainedTokenizerBase, device: torch.device
    ) -> "Rollout":
        """The rollout that `saved` came from, on `device`."""
        texts = _texts(tokenizer, saved["responses_BT"], saved["mask_BT"] > 0)
        return cls(**{name: value.to(device) for name, value in saved.items()}, texts=texts)


def write_stories(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt: str,
    *,
    seed: int,
    step: int,
    indices: Sequence[int],
    max_new_tokens: int,
    temperature: float = 1.0,
    cuda_graph: bool = False,
) -> Rollout:
    """Let the model continue `prompt` once for each story index, until its end token or `max_new_tokens`.

    `cuda_graph` starts the kernels of a GPT-2's step by one call; it is for a GPU.

    Raises:
        ValueError: prompt and story do not fit the model's positions.
        FloatingPointError: the model's logits are not numbers.
    """
    prompt_ids: list[int] = tokenizer(prompt)["input_ids"]
    decoded = decode(
        model,
        [prompt_ids] * len(indices),
        story_uniforms(seed, step, indices, max_new_tokens),
        temperature=temperature,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        cuda_graph=cuda_graph,
    )
    positions_T = torch.arange(decoded.tokens_BT.shape[1], device=decoded.tokens_BT.device)
    mask_BT = positions_T < decoded.lengths_B[:, None]
    return Rollout(
        prompt_P=torch.tensor(prompt_ids, device=mask_BT.device),
        responses_BT=decoded.tokens_BT,
        mask_BT=mask_BT.float(),
        logprobs_BT=decoded.logprobs_BT,
        ended_B=decoded.ended_B,
        texts=_texts(tokenizer, decoded.tokens_BT, mask_BT),
    )


def join(rollouts: Sequence[Rollout], pad_token_id: int) -> Rollout:
    """One rollout from chunks of the same step, in order; shorter chunks are padded on the right."""
    width = max(r.responses_BT.shape[1] for r in rollouts)

    def widen(tensor_BT: Tensor, value: float) -> Tensor:
        return torch.nn.functional.pad(tensor_BT, (0, width - tensor_BT.shape[1]), value=value)

    return Rollout(
        prompt_P=rollouts[0].prompt_P,
        responses_BT=torch.cat([widen(r.responses_BT, pad_token_id) for r in rollouts]),
        mask_BT=torch.cat([widen(r.mask_BT, 0.0) for r in rollouts]),
        logprobs_BT=torch.cat([widen(r.logprobs_BT, 0.0) for r in rollouts]),
        ended_B=torch.cat([r.ended_B for r in rollouts]),
        texts=tuple(text for r in rollouts for text in r.texts),
    )


def _texts(tokenizer: PreTrainedTokenizerBase, responses_BT: Tensor, mask_BT: Tensor) -> tuple[str, ...]:
    """The student's own words: special tokens dropped, outer white space stripped."""
    return tuple(
        str(tokenizer.decode(row[mask], skip_special_tokens=True)).strip()
        for row, mask in zip(responses_BT.cpu(), mask_BT.cpu(), strict=True)
    )
