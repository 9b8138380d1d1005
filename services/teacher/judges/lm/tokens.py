"""From text to tokens: a story never becomes a control token; answers are spelled as the tokenizer spells them."""

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from services.teacher.judges.joint import answer_levels

# Not written into the story's neighbourhood; only there to see how a tokenizer continues a text.
ANCHOR = "\n"


class ControlTokenError(ValueError):
    """A text would become a control token whatever is done."""


class StoryTokenizer:
    """Tokenises what nobody vouches for. `tokenizer` is a transformers tokenizer.

    `plain` and `decode` may be called from any thread, once `trusted` is called no more: whether control tokens are
    split is a state of the Rust tokenizer that a call sets where it differs, and another thread's call would use it.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        added = tokenizer.added_tokens_decoder
        # Added tokens of white space alone (GPT-NeoX has them) are text; every other added token steers the model.
        self.control_ids = frozenset(
            [i for i, token in added.items() if token.special or token.content.strip()]
            + list(tokenizer.all_special_ids)
        )
        texts = {added[i].content for i in self.control_ids if i in added} | set(tokenizer.all_special_tokens)
        longest_first = sorted((t.strip() for t in texts if t.strip()), key=len, reverse=True)
        # A look-ahead finds overlapping ones too.
        self._control_text = (
            re.compile("(?=" + "|".join(map(re.escape, longest_first)) + ")") if longest_first else None
        )

    def trusted(self, text: str) -> list[int]:
        """Tokens of the template's own text, control tokens included."""
        return list(self.tokenizer(text, add_special_tokens=False, split_special_tokens=False)["input_ids"])

    def plain(self, text: str) -> list[int]:
        """Tokens of untrusted text, none of them a control token.

        Raises:
            ControlTokenError: the tokenizer cannot be kept from making one.
        """
        ids = self._split(text)
        if not self._controlled(ids):
            return ids
        # Not every tokenizer, nor every added token, obeys the request: cut the marker apart and tokenise the pieces.
        inside = [match.start() + 1 for match in self._control_text.finditer(text)] if self._control_text else []
        ids = [
            i for start, end in pairwise([0, *inside, len(text)]) if start < end for i in self._split(text[start:end])
        ]
        if found := self._controlled(ids):
            names = self.tokenizer.convert_ids_to_tokens(sorted(found))
            raise ControlTokenError(f"its text becomes control tokens {names} of the judge's model")
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of tokens, control tokens written out."""
        return str(self.tokenizer.decode(ids, clean_up_tokenization_spaces=False))

    def _split(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])

    def _controlled(self, ids: Sequence[int]) -> frozenset[int]:
        return self.control_ids.intersection(ids)


def answer_tokens(tokenizer: StoryTokenizer, criteria: int, levels: int) -> list[list[list[int]]]:
    """Every tokenisation that counts, of every answer, in the order of `answer_levels`.

    These are the answer as the tokenizer writes it on its own and as it continues a text, and the same with a space in
    front where that makes the first digit another single token (" 2" next to "2").

    Raises:
        ValueError: the tokenizer cannot spell an answer.
    """
    found: list[list[list[int]]] = []
    for levels_of_answer in answer_levels(criteria, levels):
        text = " ".join(map(str, levels_of_answer))
        spaced = _continuations(tokenizer, " " + text)
        candidates = _continuations(tokenizer, text) + [ids for ids in spaced if tokenizer.decode(ids[:1]).strip()]
        spelled = {tuple(ids) for ids in candidates if tokenizer.decode(ids).strip() == text}
        if not spelled:
            raise ValueError(f"its tokenizer cannot spell the answer {text!r}")
        found.append([list(ids) for ids in sorted(spelled)])
    return found


def _continuations(tokenizer: StoryTokenizer, text: str) -> list[list[int]]:
    """Tokens of `text` on its own and, where they can be told, as the continuation of another text."""
    alone = tokenizer.plain(text)
    anchor, both = tokenizer.plain(ANCHOR), tokenizer.plain(ANCHOR + text)
    return [alone, both[len(anchor) :]] if both[: len(anchor)] == anchor else [alone]
