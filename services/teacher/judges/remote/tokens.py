"""Servers that write their chat template out and tokenise for us: TGI takes text, the others token ids."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from services.teacher.judges.lm import prompt
from services.teacher.judges.remote.dialect import Dialect, DialectError, Frame, Piece, StoryRefusedError
from services.teacher.judges.remote.http import Http, RequestRefusedError, ServerFaultError, together
from services.teacher.judges.remote.markers import markers
from services.teacher.judges.remote.tree import AnswerTree, answer_levels, build_tree
from services.teacher.rubric import Rubric

# Some templates put today's date into the prompt, and the verdicts would change overnight.
TEMPLATE_CONSTANTS = {"date_string": "26 Jul 2024", "enable_thinking": False}
# Only there to see how a tokenizer continues a text.
ANCHOR = "\n"
IN_FRONT = ("", ANCHOR, " ", ANCHOR + " ")


class TemplateDialect(Dialect):
    """A server that writes its chat template out and tokenises for us, so that any token can follow the prompt."""

    health = "/health"

    @abstractmethod
    async def render(self, messages: list[dict[str, str]]) -> str:
        """The chat as text, up to where the model answers."""

    @abstractmethod
    async def pieces(self, text: str) -> list[Piece]:
        """Tokens of `text`, which is an answer, with nothing added."""

    async def frame(self, rubric: Rubric) -> Frame:
        """See `Dialect`. A template that knows no system role (Gemma's) gets the rubric in the user's message."""
        try:
            text = await self.render(prompt.messages(rubric, system=True))
        except (RequestRefusedError, ServerFaultError):
            try:
                text = await self.render(prompt.messages(rubric, system=False))
            except RequestRefusedError as error:
                raise DialectError(f"the server's chat template fails ({error}); serve an instruct model") from error
        head, *tails = text.split(prompt.SLOT)
        if len(tails) != 1:
            raise DialectError(f"the chat template shows the story {len(tails)} times instead of once; use another")
        if rubric.criteria[-1].levels[-1].strip() not in head:
            raise DialectError("the chat template leaves out the system message or puts it last; use another template")
        return Frame(head, tails[0])

    async def tree(self, frame: Frame, rubric: Rubric) -> AnswerTree:
        """See `Dialect`. The same tokenisations as `services.teacher.judges.lm.tokens.answer_tokens` counts.

        These are an answer on its own and as it continues a text, and the same with a space in front where that makes
        the first digit another single token. What stands in front matters to the first digit alone, so that it is
        found out digit by digit, and not for each answer again.
        """
        anchor = await self.pieces(ANCHOR)
        digits = [str(level) for level in range(rubric.levels)]
        alone = await together(*(self._spelled(digit, IN_FRONT, anchor) for digit in digits))
        answers = [" ".join(map(str, levels)) for levels in answer_levels(len(rubric.criteria), rubric.levels)]
        in_front = {
            digit: list({path: front for front, path in found}.values())
            for digit, found in zip(digits, alone, strict=True)
        }
        spelled = await together(*(self._spelled(answer, in_front[answer[0]], anchor) for answer in answers))
        kept = set(await self.kept(frame, [path for found in spelled for _, path in found]))
        try:
            return build_tree([{tuple(p.id for p in path) for _, path in found if path in kept} for found in spelled])
        except ValueError as error:
            raise DialectError(f"the model's tokenizer cannot spell the answers: {error}") from error

    async def kept(self, frame: Frame, spelled: list[tuple[Piece, ...]]) -> list[tuple[Piece, ...]]:
        """Those tokenisations of answers that the server can be given after a prompt: all, where it takes ids."""
        return spelled

    async def _spelled(
        self, text: str, in_front: Sequence[str], anchor: list[Piece]
    ) -> list[tuple[str, tuple[Piece, ...]]]:
        """Each of `in_front` with the tokens of `text` behind it, where these can be told and spell the text."""
        found = []
        for front, pieces in zip(in_front, await together(*(self.pieces(f + text) for f in in_front)), strict=True):
            if front.startswith(ANCHOR):
                pieces = pieces[len(anchor) :] if pieces[: len(anchor)] == anchor else []
            if "".join(p.text for p in pieces).strip() == text and (not front.endswith(" ") or pieces[0].text.strip()):
                found.append((front, tuple(pieces)))
        return found


class TokenDialect(TemplateDialect):
    """A server that takes prompts as token ids: the parts of a prompt are tokenised apart, as in-process judges do.

    Nothing that a story says can join a token of the template, and a story whose tokens are control tokens of the
    template in spite of `markers.broken` is refused.
    """

    context: int | None = None
    _parts: dict[Frame, tuple[list[int], list[int], frozenset[int]]]

    def __init__(self, http: Http, model: str | None) -> None:
        super().__init__(http, model)
        self._parts = {}

    @abstractmethod
    async def ids(self, text: str) -> list[int]:
        """Tokens of a text that we wrote, markers as control tokens, nothing added."""

    async def head_ids(self, text: str) -> list[int]:
        """Tokens of a prompt's beginning, with a beginning-of-text token if the model wants one."""
        return await self.ids(text)

    async def story_ids(self, text: str) -> list[int]:
        """Tokens of untrusted text, as far as possible without control tokens."""
        return await self.ids(text)

    async def frame(self, rubric: Rubric) -> Frame:
        """See `Dialect`."""
        frame = await super().frame(rubric)
        names = sorted(set(markers(frame.head + frame.tail)))
        head, tail, *named = await together(
            self.head_ids(frame.head), self.ids(frame.tail), *(self.ids(name) for name in names)
        )
        self._parts[frame] = (head, tail, frozenset(found[0] for found in named if len(found) == 1))
        return frame

    async def prompt(self, frame: Frame, fenced: str, tree: AnswerTree) -> list[int]:
        """See `Dialect`: token ids."""
        head, tail, control = self._parts[frame]
        story = await self.story_ids(fenced)
        if control.intersection(story):
            raise StoryRefusedError("its text becomes control tokens of the judge's model")
        ids = [*head, *story, *tail]
        if self.context is not None and len(ids) + tree.depth > self.context:
            raise StoryRefusedError(
                f"its prompt takes {len(ids)} tokens, the server's context has room for {self.context - tree.depth}: "
                "shorten it"
            )
        return ids

    async def look(self, frame: Frame, prompt: Any) -> str:
        """See `Dialect`: the first two tokens are not the same, and the server reads as many as were sent."""
        if len(prompt) > 1 and prompt[0] == prompt[1]:
            raise DialectError(
                f"the prompt begins with token {prompt[0]} twice: the template writes a beginning token (BOS) and the "
                "tokenizer adds one; turn one of them off"
            )
        read_as_sent(await self.read_tokens(prompt), len(prompt))
        return "one BOS at most"

    @abstractmethod
    async def read_tokens(self, prompt: list[int]) -> object:
        """How many tokens the server says it read of a prompt."""


def read_as_sent(read: object, sent: int) -> None:
    """Raise DialectError where the server says that it read another number of tokens."""
    if read != sent:
        raise DialectError(
            f"the server read {read!r} tokens of a prompt of {sent}: it adds a beginning token (BOS) of its own, or "
            "cuts the prompt; start it so that it leaves prompts as they are"
        )


def plain(entry: str) -> str:
    """A vocabulary entry as text: byte-level and sentencepiece vocabularies write white space their own way."""
    return entry.replace("Ġ", " ").replace("▁", " ").replace("Ċ", "\n")
