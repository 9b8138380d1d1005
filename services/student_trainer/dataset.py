"""Documents as blocks of tokens, and the order in which they are seen.

Documents are joined by `</s>` and cut into blocks of equal length; the tail that fills no block is dropped. A word is
charged to the block that holds the token in which it ends, so that over one epoch the blocks' words sum to the
corpus's, less those in the tail.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

_WORD = re.compile(r"\S+")
DOCUMENTS_A_CALL = 1000

Tokens = np.ndarray[tuple[int, int], np.dtype[np.int32]]
Words = np.ndarray[tuple[int], np.dtype[np.int64]]


@dataclass(frozen=True)
class Blocks:
    """N blocks of T tokens: `tokens_NT` (int32) and the words that end in each, `words_N` (int64)."""

    tokens_NT: torch.Tensor
    words_N: torch.Tensor

    def __len__(self) -> int:
        return self.tokens_NT.shape[0]


def make_blocks(
    documents: Sequence[str], tokenizer: PreTrainedTokenizerBase, block_tokens: int, at_most: int | None = None
) -> Blocks:
    """Tokenise and cut; `at_most` so many blocks. Text that looks like a special token stays text."""
    tokens = [np.zeros((0, block_tokens), dtype=np.int32)]
    words = [np.zeros(0, dtype=np.int64)]
    for tokens_NT, words_N in cut(documents, tokenizer, block_tokens):
        tokens.append(tokens_NT)
        words.append(words_N)
        if at_most is not None and sum(map(len, words)) >= at_most:
            break
    return Blocks(torch.from_numpy(np.concatenate(tokens)[:at_most]), torch.from_numpy(np.concatenate(words)[:at_most]))


def cut(
    documents: Sequence[str], tokenizer: PreTrainedTokenizerBase, block_tokens: int
) -> Iterator[tuple[Tokens, Words]]:
    """The blocks, some at a time: tokens [N, T] and the words that end in each block [N]; N may be 0."""
    tokens, words = np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.int64)
    for start in range(0, len(documents), DOCUMENTS_A_CALL):
        ids, ends = [tokens], [words]
        for document_ids, document_words in _tokenise(documents[start : start + DOCUMENTS_A_CALL], tokenizer):
            ids.append(np.asarray([*document_ids, tokenizer.eos_token_id], dtype=np.int32))
            ends.append(np.asarray([*document_words, 0], dtype=np.int64))
        tokens, words = np.concatenate(ids), np.concatenate(ends)
        size = len(tokens) // block_tokens
        used = size * block_tokens
        yield tokens[:used].reshape(size, block_tokens), words[:used].reshape(size, block_tokens).sum(axis=1)
        tokens, words = tokens[used:], words[used:]


def _tokenise(documents: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> Iterator[tuple[list[int], list[int]]]:
    """Token ids of each document, and how many words end in each token."""
    texts = list(documents)
    encoded = tokenizer(
        texts,
        add_special_tokens=False,
        split_special_tokens=True,
        return_offsets_mapping=True,
        return_attention_mask=False,
        verbose=False,
    )
    for text, ids, offsets in zip(texts, encoded["input_ids"], encoded["offset_mapping"], strict=True):
        word_ends = [match.end() for match in _WORD.finditer(text)]
        words_until = np.searchsorted(word_ends, [end for _, end in offsets], side="right")
        yield ids, np.diff(words_until, prepend=0).tolist()


def epoch_order(blocks: int, seed: int, epoch: int) -> torch.Tensor:
    """Order of the blocks in an epoch, int64 of length N: a pure function of its arguments."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "epoch", epoch))
    return torch.randperm(blocks, generator=generator)


def derive_seed(seed: int, purpose: str, index: int) -> int:
    """A seed for one purpose and index, in 0..2^63-1, unrelated to its neighbours'."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{index}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
