"""Further tiny models with random weights: grouped queries, a sliding window, no attention at all, masked."""

from typing import Any

import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    ModernBertConfig,
    ModernBertForMaskedLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    RobertaConfig,
    RobertaForMaskedLM,
)

ATTENTION: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "initializer_range": 0.3,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "pad_token_id": 1,
}


def seeded(kind: Any, config: Any) -> PreTrainedModel:
    """A model in evaluation mode, the same at every call."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model: PreTrainedModel = kind(config).eval()
    return model


def tiny_qwen2(vocab_size: int) -> PreTrainedModel:
    """Biased and grouped queries, rotary positions."""
    return seeded(Qwen2ForCausalLM, Qwen2Config(vocab_size=vocab_size, num_key_value_heads=1, **ATTENTION))


def tiny_mistral(vocab_size: int) -> PreTrainedModel:
    """A sliding window of eight tokens."""
    config = MistralConfig(vocab_size=vocab_size, num_key_value_heads=2, sliding_window=8, **ATTENTION)
    return seeded(MistralForCausalLM, config)


def tiny_mamba(vocab_size: int) -> PreTrainedModel:
    """A state-space model: no attention, no mask, no positions."""
    config = MambaConfig(
        vocab_size=vocab_size, hidden_size=32, state_size=4, num_hidden_layers=2, initializer_range=0.3, expand=1
    )
    return seeded(MambaForCausalLM, config)


def tiny_bert(vocab_size: int) -> PreTrainedModel:
    """A masked model with learnt positions."""
    return seeded(BertForMaskedLM, BertConfig(vocab_size=vocab_size, **ATTENTION))


def tiny_roberta(vocab_size: int) -> PreTrainedModel:
    """A masked model whose positions begin after those of padding: 256 rows, 254 usable."""
    return seeded(RobertaForMaskedLM, RobertaConfig(vocab_size=vocab_size, **ATTENTION))


def tiny_modernbert(vocab_size: int) -> PreTrainedModel:
    """A masked model with rotary positions and local attention."""
    return seeded(
        ModernBertForMaskedLM,
        ModernBertConfig(vocab_size=vocab_size, local_attention=8, cls_token_id=0, sep_token_id=2, **ATTENTION),
    )
