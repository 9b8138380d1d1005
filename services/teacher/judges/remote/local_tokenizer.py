"""A model's tokenizer in this process, for servers that write no chat template out: transformers', without torch."""

from typing import Any

from services.teacher.judges.remote.dialect import DialectError, Piece
from services.teacher.judges.remote.http import RequestRefusedError
from services.teacher.judges.remote.tokens import TEMPLATE_CONSTANTS, plain


class LocalTokenizer:
    """`tokenizer` is a transformers tokenizer with a chat template."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def render(self, messages: list[dict[str, str]]) -> str:
        """The chat as text, up to where the model answers.

        Raises:
            RequestRefusedError: the template will not have it.
        """
        from jinja2 import TemplateError  # comes with what transformers needs for templates

        try:
            text = self._tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True, **TEMPLATE_CONSTANTS
            )
        except (TemplateError, ValueError) as error:
            raise RequestRefusedError(400, f"the tokenizer's chat template: {error}") from error
        return str(text)

    def ids(self, text: str, *, trusted: bool) -> list[int]:
        """Tokens of `text` with nothing added; control tokens only of trusted text."""
        found = self._tokenizer(text, add_special_tokens=False, split_special_tokens=not trusted)["input_ids"]
        return [int(i) for i in found]

    def pieces(self, text: str) -> list[Piece]:
        """Tokens of an answer with their texts."""
        ids = self.ids(text, trusted=True)
        entries = self._tokenizer.convert_ids_to_tokens(ids)
        return [Piece(i, plain(str(entry))) for i, entry in zip(ids, entries, strict=True)]


def load_tokenizer(source: str) -> LocalTokenizer:
    """The tokenizer of a model by its name on the hub or its folder.

    Raises:
        DialectError: transformers is not installed, or there is no such tokenizer, or it has no chat template.
    """
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise DialectError(
            "this version of the server writes no chat template out, and transformers, which could, is not here; take "
            "a newer server, or: pip install 'transformers>=5.20' jinja2 (torch is not needed)"
        ) from error
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError, KeyError, ImportError) as error:
        why = " ".join(str(error).split())[:200]
        raise DialectError(
            f"the tokenizer {source!r} cannot be loaded here ({why}); name one that can after # in the teacher's name"
        ) from error
    if not tokenizer.chat_template:
        raise DialectError(f"the tokenizer {source!r} has no chat template; serve an instruct model")
    return LocalTokenizer(tokenizer)
