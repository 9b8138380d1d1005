"""Tiny language models with random weights and a chat template, written as ordinary model folders."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from services.teacher.judges.lm.loading import LoadedModel, load_model, load_tokenizer

HEADERS = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|end_of_text|>")
LLAMA_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
    "{{ m['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
CHATML = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
CHATML_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# No system role, and the answer follows a colon: such a model writes " 2" first.
PLAIN_TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system role here') }}{% endif %}"
    "{{ m['role'] | upper }}: {{ m['content'] }}\n{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
# Llama 3's splitting: a space never joins a number.
LLAMA_SPLIT = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
# Two numbers and the space between them are one piece, as in vocabularies that learnt short lists of numbers.
PAIRS_SPLIT = r"\d \d|" + LLAMA_SPLIT
PAIRS = " and ".join(f"{a} {b}" for a in range(4) for b in range(4))
CORPUS = (
    "Once upon a time a fox lost his lantern. He asked the owl, who knew the night. They found it at dawn.",
    "Grade the student's story on readability, coherence and creativity: 2 1 3, 0 0 0, 3 3 2, 1 2 1. Write numbers.",
    "The student was given the opening of a tale. Correct grammar throughout; well written. Dull or hard to follow.",
    "A story is mostly coherent, highly original, imaginative and engaging, or it is frequently hard to understand.",
)


def _tokenizer(
    special: tuple[str, ...],
    template: str,
    *,
    end: str,
    begin: str | None = None,
    split: str | None,
    vocab: int = 512,
    corpus: Sequence[str] = (*CORPUS * 4, *[PAIRS] * 20),
) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer trained here. Without `split` it is GPT-2's way: a space joins the next number."""
    tokenizer = Tokenizer(models.BPE())
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split is None)
    tokenizer.pre_tokenizer = (
        pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(split), "isolated"), bytes_only]) if split else bytes_only
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, chat_template=template, bos_token=begin, eos_token=end)


def _save(folder: Path, model: Any, tokenizer: PreTrainedTokenizerFast) -> Path:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_tiny_llama(folder: Path, seed: int = 0, *, pairs: bool = False, heads: int = 4) -> Path:
    """Write a random Llama with Llama 3's chat template and way with numbers ("2 1 2" is five tokens).

    It has two layers, 64 wide. With `pairs` its tokenizer reads numbers two at a time: "2 1 2" is "2 1", " " and "2".
    """
    split = PAIRS_SPLIT if pairs else LLAMA_SPLIT
    tokenizer = _tokenizer(HEADERS, LLAMA_TEMPLATE, split=split, begin="<|begin_of_text|>", end="<|eot_id|>")
    return _llama(folder, tokenizer, layers=2, width=64, heads=heads, seed=seed)


def make_small_llama(folder: Path, corpus: Sequence[str], *, layers: int, width: int, vocab: int) -> Path:
    """Write a random Llama of any size, heads 64 wide, its tokenizer trained on `corpus`."""
    tokenizer = _tokenizer(
        HEADERS,
        LLAMA_TEMPLATE,
        split=LLAMA_SPLIT,
        begin="<|begin_of_text|>",
        end="<|eot_id|>",
        vocab=vocab,
        corpus=corpus,
    )
    return _llama(folder, tokenizer, layers=layers, width=width, heads=width // 64, seed=0)


def _llama(folder: Path, tokenizer: PreTrainedTokenizerFast, *, layers: int, width: int, heads: int, seed: int) -> Path:
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=max(1, heads // 2),
        max_position_embeddings=2048,
        initializer_range=0.1,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return _save(folder, _seeded(LlamaForCausalLM, config, seed), tokenizer)


def make_tiny_qwen2(folder: Path, seed: int = 0) -> Path:
    """Write a random two-layer Qwen2 with ChatML, no beginning-of-text token, and added tokens that are not special.

    "2 1 2" is five tokens: transformers gives every Qwen2 its own splitting, whatever the folder says.
    """
    tokenizer = _tokenizer(CHATML, CHATML_TEMPLATE, split=LLAMA_SPLIT, end="<|im_end|>")
    tokenizer.add_tokens(["<tool_call>", "</tool_call>"])
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        initializer_range=0.1,
        eos_token_id=tokenizer.eos_token_id,
    )
    return _save(folder, _seeded(Qwen2ForCausalLM, config, seed), tokenizer)


def make_tiny_neox(folder: Path, seed: int = 0) -> Path:
    """Write a random two-layer GPT-NeoX whose tokenizer joins a space to the next digit ("2 1 2" is three tokens)."""
    tokenizer = _tokenizer(("<|endoftext|>",), PLAIN_TEMPLATE, split=None, end="<|endoftext|>")
    config = GPTNeoXConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=2048,
        initializer_range=0.1,
        eos_token_id=tokenizer.eos_token_id,
    )
    return _save(folder, _seeded(GPTNeoXForCausalLM, config, seed), tokenizer)


def load_tiny(folder: Path, dtype: str = "auto", device: str = "cpu") -> LoadedModel:
    """The model in `folder`, as the teacher loads it."""
    tokenizer = load_tokenizer(str(folder), revision=None)
    return load_model(str(folder), tokenizer, revision=None, device=device, dtype=dtype)


def _seeded(kind: Any, config: Any, seed: int) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return kind(config).eval()
