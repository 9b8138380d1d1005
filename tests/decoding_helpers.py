"""Small students of several kinds, and a check of what was decoded against plain, uncached forwards of one row."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
)

from services.student_trainer.decoding import Decoded, decode
from services.student_trainer.sampling import story_uniforms

EOS, PAD, VOCAB, ROOM = 2, 1, 300, 12
ALIKE = [[5, 6, 7, 8]] * 5
LEVEL = [[5, 6, 7, 8], [9, 10, 11, 12], [5, 6, 7, 8]]
UNLIKE = [[5, 6, 7, 8], [9], [10, 11, 12, 13, 14, 15], [16, 17], [5, 6, 7, 8]]


def gpt2(**changes: Any) -> GPT2Config:
    """Three layers of two heads, 40 positions."""
    shape = {"vocab_size": VOCAB, "n_positions": 40, "n_embd": 16, "n_layer": 3, "n_head": 2}
    return GPT2Config(**shape | {"activation_function": "gelu_pytorch_tanh"} | changes)


def llama(kind: type[PreTrainedConfig], **changes: Any) -> PreTrainedConfig:
    """Two layers of four heads, 40 positions."""
    shape = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4}
    return kind(**shape | {"vocab_size": VOCAB, "max_position_embeddings": 40} | changes)


STUDENTS: dict[str, PreTrainedConfig] = {
    "gpt2": gpt2(),
    "gpt2 dropout": gpt2(resid_pdrop=0.5, embd_pdrop=0.5, attn_pdrop=0.5),
    "gpt2 gelu_new": gpt2(activation_function="gelu_new"),
    "gpt2 relu": gpt2(activation_function="relu"),
    "gpt2 inverse layer": gpt2(scale_attn_by_inverse_layer_idx=True),
    "gpt2 unscaled": gpt2(scale_attn_weights=False),
    "gpt2 upcast": gpt2(reorder_and_upcast_attn=True, scale_attn_by_inverse_layer_idx=True),
    "gpt2 untied": gpt2(tie_word_embeddings=False, n_inner=20, layer_norm_epsilon=1e-3),
    "llama": llama(LlamaConfig, num_key_value_heads=2),
    "qwen2": llama(Qwen2Config, num_key_value_heads=2),
    "neox": llama(GPTNeoXConfig),
}


def random_student(config: PreTrainedConfig, seed: int = 1, *, sharpen: float = 6.0) -> PreTrainedModel:
    """Random weights in training mode, with matrices times `sharpen`: mistakes in position or mask then show."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(sharpen)
    model.train()
    return model


@cache
def student(name: str) -> PreTrainedModel:
    """One of `STUDENTS`; not to be changed."""
    torch.set_num_threads(1)
    return random_student(STUDENTS[name])


def few_words(name: str) -> PreTrainedModel:
    """A student with 18 tokens to choose from, of which one ends the story: rows end all along the way."""
    return random_student(type(STUDENTS[name])(**STUDENTS[name].to_dict() | {"vocab_size": 18}), 4, sharpen=1.0)


def write(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    uniforms_BT: Tensor,
    temperature: float = 1.0,
    *,
    cuda_graph: bool = False,
) -> Decoded:
    """`decode` with this file's end and padding tokens."""
    return decode(
        model,
        prompts,
        uniforms_BT,
        temperature=temperature,
        eos_token_id=EOS,
        pad_token_id=PAD,
        cuda_graph=cuda_graph,
    )


def uniforms(rows: int, seed: int = 0, room: int = ROOM) -> Tensor:
    """Random numbers [rows, room] of step 0."""
    return story_uniforms(seed, 0, range(rows), room)


def plain_logprobs(model: PreTrainedModel, prompt: Sequence[int], row: Sequence[int], temperature: float) -> Tensor:
    """Log-probabilities [T, V] before each token of `row`, from one forward pass without a cache."""
    training = model.training
    model.eval()
    with torch.no_grad():
        ids = torch.tensor([[*prompt, *row]], device=model.device)
        logits = model(ids, use_cache=False).logits[0, len(prompt) - 1 : -1]
    model.train(training)
    return torch.log_softmax(logits.cpu().double() / temperature, dim=-1)


def check(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    uniforms_BT: Tensor,
    written: Decoded,
    temperature: float = 1.0,
) -> None:
    """Every token is the one that its uniform picks, with its log-probability; ends, lengths and padding fit."""
    longest = int(written.lengths_B.max())
    assert written.tokens_BT.shape == written.logprobs_BT.shape == (len(prompts), longest)
    for b, prompt in enumerate(prompts):
        length = int(written.lengths_B[b])
        row = written.tokens_BT[b, :length].tolist()
        assert (EOS in row) == bool(written.ended_B[b])
        assert row.index(EOS) == length - 1 if EOS in row else length == uniforms_BT.shape[1]
        assert (written.tokens_BT[b, length:] == PAD).all()
        assert (written.logprobs_BT[b, length:] == 0).all()
        expected_TV = plain_logprobs(model, prompt, row, temperature)
        expected_T = expected_TV[torch.arange(length), row]
        torch.testing.assert_close(written.logprobs_BT[b, :length].cpu().double(), expected_T, atol=1e-4, rtol=0)
        after_T = expected_TV.exp().cumsum(-1)[torch.arange(length), row]
        assert (uniforms_BT[b, :length] <= after_T + 1e-5).all()
        assert (uniforms_BT[b, :length] >= after_T - expected_T.exp() - 1e-5).all()
