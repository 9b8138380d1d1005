"""Random language models of three kinds, for comparisons of evaluators: a trained one is not needed for equality."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

KINDS = ("gpt2-small", "llama", "masked")
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
SMALL: dict[str, Any] = {
    "hidden_size": 128,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
}


def build(folder: Path, kind: str, vocab: int, texts: Iterable[str]) -> None:
    """Save a random model and a byte-level BPE tokenizer trained on `texts`, which may have fewer entries than `vocab`.

    gpt2-small is 12 layers of 768; llama (grouped queries) and masked (BERT) are 4 layers of 128. The masked one's
    texts begin with <s> and end with </s>. The model has `vocab` embeddings whatever the tokenizer has.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab, special_tokens=list(SPECIAL), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    if kind == "masked":
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
        )
    named = dict(zip(("bos_token", "pad_token", "eos_token", "unk_token", "mask_token"), SPECIAL, strict=True))
    named["cls_token"] = SPECIAL[0]
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named).save_pretrained(folder)
    torch.manual_seed(0)
    ids: dict[str, Any] = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
    model: Any
    if kind == "gpt2-small":
        model = GPT2LMHeadModel(GPT2Config(vocab_size=vocab, **ids))
    elif kind == "llama":
        model = LlamaForCausalLM(LlamaConfig(vocab_size=vocab, num_key_value_heads=2, **SMALL, **ids))
    else:
        model = BertForMaskedLM(BertConfig(vocab_size=vocab, **SMALL, **ids))
    model.save_pretrained(folder)


def readable_by_both(model: Path, folder: Path) -> Path:
    """Links to a checkpoint's files, its tokenizer described so that transformers 4 reads it as 5 does.

    That is the class under its old name, and no `token_type_ids`: version 4 makes them where nothing forbids it, the
    pipeline's reading task hands them on, and GPT-2 then adds token 0's embedding to every token.
    """
    folder.mkdir()
    for file in model.resolve().iterdir():
        if file.name != "tokenizer_config.json":
            (folder / file.name).symlink_to(file)
    config = json.loads((model / "tokenizer_config.json").read_text(encoding="utf-8"))
    if config.get("tokenizer_class") == "TokenizersBackend":
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
    config.setdefault("model_input_names", ["input_ids", "attention_mask"])
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder
