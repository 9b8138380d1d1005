"""Tiny real checkpoints and a brute-force scorer for the evaluator's tests."""

from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from services.evaluator.generated.box_stories import box_stories
from services.evaluator.generated.minimal_pairs import minimal_pairs
from services.evaluator.items import Item

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


def no_progress(done: int, total: int) -> None:
    """Progress that nobody watches."""


def tiny_tokenizer(vocab_size: int = 600, *, add_bos: bool = False) -> PreTrainedTokenizerFast:
    """Byte-level BPE on the evaluator's own items; with `add_bos`, every text begins with `<s>`."""
    texts = [c.text for item in (*minimal_pairs(0).items, *box_stories(0, 5).items) for c in item.candidates]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    if add_bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
        )
    named = dict(zip(("bos_token", "pad_token", "eos_token", "unk_token"), special, strict=False))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named)


def tiny_gpt2(vocab_size: int, context: int = 256, seed: int = 0) -> PreTrainedModel:
    """A GPT-2 of two layers with random weights, spread widely enough that predictions are not ties."""
    torch.set_num_threads(1)  # more only get in each other's way on models this small
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=vocab_size,
        n_positions=context,
        n_embd=32,
        n_layer=2,
        n_head=2,
        initializer_range=0.3,
        bos_token_id=0,
        eos_token_id=2,
        pad_token_id=1,
    )
    model: PreTrainedModel = GPT2LMHeadModel(config).eval()
    return model


def tiny_llama(vocab_size: int) -> PreTrainedModel:
    """A Llama of two layers with random weights: rotary positions, grouped queries."""
    torch.set_num_threads(1)  # more only get in each other's way on models this small
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=0.3,
        bos_token_id=0,
        eos_token_id=2,
        pad_token_id=1,
    )
    model: PreTrainedModel = LlamaForCausalLM(config).eval()
    return model


def save_checkpoint(folder: Path, *, context: int = 256, seed: int = 0) -> Path:
    """A complete checkpoint folder, manifest last."""
    tokenizer = tiny_tokenizer()
    tiny_gpt2(len(tokenizer), context, seed).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "manifest.json").write_text("{}\n", encoding="utf-8")
    return folder


def brute_force(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, items: Sequence[Item]) -> list[list[float]]:
    """Every candidate alone, in full, token by token: no batch, no padding, no cache, no shared prefix."""
    scores: list[list[float]] = []
    for item in items:
        row = []
        for candidate in item.candidates:
            encoded = tokenizer(candidate.text, return_offsets_mapping=True)
            ids, offsets = encoded["input_ids"], encoded["offset_mapping"]
            with torch.no_grad():
                logp_TV = torch.log_softmax(model(input_ids=torch.tensor([ids])).logits[0], dim=-1)
            begin = len(candidate.text) - len(candidate.completion) + offsets[0][0]
            total = 0.0
            for position in range(1, len(ids)):
                if offsets[position][1] > begin:
                    total += float(logp_TV[position - 1, ids[position]])
            row.append(total)
        scores.append(row)
    return scores
