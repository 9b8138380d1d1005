"""Writing stories: batched decoding with a key/value cache, one random stream a story.

All prompts of a call have the same number of tokens, so nothing is padded on the left and positions are right by
construction (GPT-2 with left padding and no position ids is the classic mistake here).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from services.student_trainer.sampling import pick_tokens, story_uniforms


@dataclass(frozen=True)
class Rollout:
    """Stories as tokens and as text. B stories; P prompt tokens; T = longest response.

    `mask_BT` is 1 on a response's tokens, its end token included, and 0 on padding; it comes from lengths, never from
    comparing ids, so a sampled pad token is a token like any other.
    """

    prompt_P: Tensor
    responses_BT: Tensor
    mask_BT: Tensor
    ended_B: Tensor
    texts: tuple[str, ...]

    @property
    def sequences_BS(self) -> Tensor:
        """Prompt and response, [B, P + T]."""
        prompt_BP = self.prompt_P[None].expand(len(self.texts), -1)
        return torch.cat([prompt_BP, self.responses_BT], dim=1)


@torch.no_grad()
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
) -> Rollout:
    """Let the model continue `prompt` once for each story index, until its end token or `max_new_tokens`."""
    prompt_P = torch.tensor(tokenizer(prompt)["input_ids"], dtype=torch.long, device=model.device)
    uniforms_BT = story_uniforms(seed, step, indices, max_new_tokens).to(model.device)
    stories = len(indices)
    cache = DynamicCache(config=model.config)
    inputs = prompt_P[None].expand(stories, -1)
    open_B = torch.ones(stories, dtype=torch.bool, device=model.device)
    tokens, masks = [], []
    for position in range(max_new_tokens):
        seen_BS = torch.ones(stories, len(prompt_P) + position, dtype=torch.long, device=model.device)
        output = model(inputs, attention_mask=seen_BS, past_key_values=cache, use_cache=True, logits_to_keep=1)
        picked_B = pick_tokens(output.logits[:, -1], uniforms_BT[:, position], temperature)
        tokens.append(torch.where(open_B, picked_B, tokenizer.pad_token_id))
        masks.append(open_B.clone())
        open_B &= picked_B != tokenizer.eos_token_id
        if not open_B.any():
            break
        inputs = tokens[-1][:, None]
    responses_BT, mask_BT = torch.stack(tokens, dim=1), torch.stack(masks, dim=1)
    return Rollout(prompt_P, responses_BT, mask_BT.float(), ~open_B, _texts(tokenizer, responses_BT, mask_BT))


def join(rollouts: Sequence[Rollout], pad_token_id: int) -> Rollout:
    """One rollout from chunks of the same step, in order; shorter chunks are padded on the right."""
    width = max(r.responses_BT.shape[1] for r in rollouts)

    def widen(tensor_BT: Tensor, value: float) -> Tensor:
        return torch.nn.functional.pad(tensor_BT, (0, width - tensor_BT.shape[1]), value=value)

    return Rollout(
        prompt_P=rollouts[0].prompt_P,
        responses_BT=torch.cat([widen(r.responses_BT, pad_token_id) for r in rollouts]),
        mask_BT=torch.cat([widen(r.mask_BT, 0.0) for r in rollouts]),
        ended_B=torch.cat([r.ended_B for r in rollouts]),
        texts=tuple(text for r in rollouts for text in r.texts),
    )


def _texts(tokenizer: PreTrainedTokenizerBase, responses_BT: Tensor, mask_BT: Tensor) -> tuple[str, ...]:
    """The student's own words: special tokens dropped, outer white space stripped."""
    return tuple(
        str(tokenizer.decode(row[mask], skip_special_tokens=True)).strip()
        for row, mask in zip(responses_BT.cpu(), mask_BT.bool().cpu(), strict=True)
    )
