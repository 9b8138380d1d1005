"""Byte-level BPE, trained on the run's own corpus, with the paper's special tokens.

Encoding adds nothing: who wants `<s>` or `</s>` puts them there. Any text survives encode and decode unchanged, because
the alphabet is all 256 bytes and no space is added or cleaned away.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from services.student_trainer.settings import TokenizerSettings

BOS = "<s>"
PAD = "<pad>"
EOS = "</s>"
UNK = "<unk>"
MASK = "<mask>"
SPECIAL_TOKENS = (BOS, PAD, EOS, UNK, MASK)
"""In the order of their ids, 0 to 4."""


def train_tokenizer(texts: Iterable[str], settings: TokenizerSettings) -> PreTrainedTokenizerFast:
    """Learn the merges from `texts`. The same texts in the same order give the same tokenizer.

    A small corpus may not yield `vocab_size` entries: fewer pairs than that occur `min_frequency` times.
    """
    bpe = Tokenizer(BPE())
    bpe.pre_tokenizer = ByteLevel(add_prefix_space=False)
    bpe.decoder = ByteLevelDecoder()
    trainer = BpeTrainer(
        vocab_size=settings.vocab_size,
        min_frequency=settings.min_frequency,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token=BOS,
        pad_token=PAD,
        eos_token=EOS,
        unk_token=UNK,
        mask_token=MASK,
        clean_up_tokenization_spaces=False,
    )


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Save so that transformers 4.51, which the BabyLM 2025 pipeline uses, reads the same as 5.

    Version 5 names a class that version 4 does not know, and version 4 hands `token_type_ids` to models where nothing
    says that they take none: GPT-2 would add an embedding to every token.
    """
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    written = json.loads(path.read_text(encoding="utf-8"))
    if written.get("tokenizer_class") == "TokenizersBackend":
        written["tokenizer_class"] = "PreTrainedTokenizerFast"
        written.setdefault("model_input_names", ["input_ids", "attention_mask"])
        path.write_text(json.dumps(written, indent=2, sort_keys=True) + "\n", encoding="utf-8")
