"""Small GLUE files whose label shows in a text's first word, and tiny checkpoints whose weights no library draws.

tests/glue/pipeline.json holds what the BabyLM 2025 pipeline made of exactly these (learning rate 3e-3).
"""

import json
from pathlib import Path
from random import Random
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

RECORDED = Path(__file__).parent / "glue" / "pipeline.json"
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
OPENINGS = (("old", "slow", "dark"), ("young", "quick", "bright"), ("some", "many", "few"))
WORDS = ("fox", "owl", "river", "stone", "lamp", "saw", "lost", "found", "crossed", "the", "a", "under", "near", "who")
FRAME = ("Does", '"', "refer", "to", "in", "this", "passage", "?", "Question", "Answer", ":")
FIELDS = {
    "boolq": ("question", "passage"),
    "mnli": ("premise", "hypothesis"),
    "mrpc": ("sentence1", "sentence2"),
    "multirc": ("question", "answer", "paragraph"),
    "qqp": ("question1", "question2"),
    "rte": ("sentence1", "sentence2"),
    "wsc": ("span2_text", "span1_text", "text"),
}


def glue_rows(task: str, count: int, seed: int) -> list[dict[str, Any]]:
    """Rows of `task`; three in four begin with a word that tells their label."""
    rng, rows = Random(f"{task}{seed}"), []
    for index in range(count):
        label = rng.randrange(3 if task == "mnli" else 2)
        shown = label if rng.random() < 0.75 else rng.randrange(3)
        texts = {key: " ".join(rng.choices(WORDS, k=rng.randint(2, 9))) for key in FIELDS[task]}
        first = FIELDS[task][0]
        texts[first] = f"{rng.choice(OPENINGS[shown])} {texts[first]}"
        rows.append({**texts, "label": label, "idx": index})
    return rows


def write_glue(folder: Path, task: str, *, train: int = 70, valid: int = 30) -> Path:
    """`<folder>/full_eval/glue_filtered/<task>.{train,valid}.jsonl`; gives `folder`."""
    place = folder / "full_eval" / "glue_filtered"
    place.mkdir(parents=True, exist_ok=True)
    for split, count, seed in (("train", train, 1), ("valid", valid, 2)):
        lines = [json.dumps(row) for row in glue_rows(task, count, seed)]
        (place / f"{task}.{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def word_tokenizer(*, framed: bool) -> PreTrainedTokenizerFast:
    """One token a word; `framed` puts <s> before a text and </s> behind each of the pair, as BERT's does."""
    words = [*SPECIAL, *(word for group in OPENINGS for word in group), *WORDS, *FRAME]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=SPECIAL[3]))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if framed:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
        )
    named = dict(zip(("bos_token", "pad_token", "eos_token", "unk_token", "mask_token"), SPECIAL, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named)


def glue_model(kind: str, vocab: int) -> PreTrainedModel:
    """A `gpt2`, `llama` or `bert` of two layers, its weights from torch's generator alone, by name in order."""
    torch.set_num_threads(1)
    shape: dict[str, Any] = {"vocab_size": vocab, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    model: PreTrainedModel
    if kind == "gpt2":
        model = GPT2LMHeadModel(GPT2Config(n_positions=64, n_embd=32, n_layer=2, n_head=2, **shape))
    else:
        sizes: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "max_position_embeddings": 64}
        sizes |= {"num_hidden_layers": 2, "num_attention_heads": 2}
        model = (
            LlamaForCausalLM(LlamaConfig(**sizes, **shape))
            if kind == "llama"
            else BertForMaskedLM(BertConfig(**sizes, **shape))
        )
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for _, weight in sorted(model.named_parameters()):
            if weight.dim() > 1:
                weight.copy_(0.2 * torch.randn(weight.shape, generator=generator))
    return model


def save_glue_checkpoint(folder: Path, kind: str) -> Path:
    """A complete checkpoint folder, manifest last."""
    tokenizer = word_tokenizer(framed=kind == "bert")
    glue_model(kind, len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "manifest.json").write_text("{}\n", encoding="utf-8")
    return folder
