"""What a server's dialect answers."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from services.teacher.judges.remote.http import Http
from services.teacher.judges.remote.tree import AnswerTree, Path, Token
from services.teacher.rubric import Rubric


class DialectError(Exception):
    """The server's model, template or tokenizer cannot carry the judge; it stays so."""


class StoryRefusedError(Exception):
    """This story cannot be asked about."""


@dataclass(frozen=True)
class Description:
    """What the server says of itself. `context` is in tokens, None where it does not say."""

    model: str
    revision: str
    context: int | None
    seeded: bool = True  # whether a seed has an effect there


@dataclass(frozen=True)
class Piece:
    """A token and its text, with a space where the tokenizer writes one its own way."""

    id: int
    text: str


@dataclass(frozen=True)
class Frame:
    """A prompt around the place of the story, as text; `head` is what all stories share."""

    head: str
    tail: str


@dataclass(frozen=True)
class Draw:
    """What mode sample asks for: an answer of `criteria` signs with spaces between, held to that where that can be."""

    criteria: int
    levels: int
    temperature: float
    seed: int
    signs: str = ""  # as in a character class; the levels' digits unless something else is given

    @property
    def sign(self) -> str:
        """One sign of the answer as a character class, in regular expressions and in GBNF alike."""
        return f"[{self.signs or f'0-{self.levels - 1}'}]"

    @property
    def max_tokens(self) -> int:
        """A digit and a space each, as the paper has it: 6 for its 3 criteria."""
        return 2 * self.criteria

    @property
    def pattern(self) -> str:
        """The answers as a regular expression. A space may come first, as some models write it."""
        return " ?" + " ".join([self.sign] * self.criteria)


@dataclass(frozen=True)
class Sampled:
    """What was drawn; where it came with them, the first token's log-probabilities, not yet checked."""

    text: str
    first: dict[Token, float] | None = None


class Dialect(ABC):
    """One kind of server. A prompt is whatever its `prompt` makes and its other methods take.

    All methods raise what `Http` raises, and `MalformedAnswerError` where an answer lacks what was asked for.
    """

    backend: ClassVar[str]
    constrains: ClassVar[bool]  # whether it can hold an answer to a pattern
    health: ClassVar[str | None] = None  # where it says 503 while it loads

    def __init__(self, http: Http, model: str | None) -> None:
        self.http = http
        self.model = model

    @abstractmethod
    async def describe(self) -> Description:
        """Ask the server what it holds. Raises DialectError where that is not what was named."""

    @abstractmethod
    async def frame(self, rubric: Rubric) -> Frame:
        """The rubric's prompt as the server's chat template writes it. Raises DialectError where that fails."""

    @abstractmethod
    async def tree(self, frame: Frame, rubric: Rubric) -> AnswerTree:
        """The answers as the model's tokenizer writes them. Raises DialectError where it cannot."""

    @abstractmethod
    async def prompt(self, frame: Frame, fenced: str, tree: AnswerTree) -> Any:
        """The prompt for a story, fenced and free of markers. Raises StoryRefusedError where it cannot be asked."""

    @abstractmethod
    async def next_tokens(self, prompt: Any, paths: Sequence[Path], tree: AnswerTree) -> dict[Path, dict[Token, float]]:
        """Log-probabilities of the next token after the prompt and each path, all of one depth: those of the tree's
        children as far as they can be had, and of other tokens; not yet checked. Also after the paths that these are
        forced to go on to, where that costs no further question.
        """

    @abstractmethod
    async def sample(self, prompt: Any, draw: Draw) -> Sampled:
        """One answer, drawn."""

    async def look(self, frame: Frame, prompt: Any) -> str:
        """Check that the prompt is read as it is written; what was found, for notes. Raises DialectError if not."""
        return ""

    def shown(self, frame: Frame, fenced: str) -> str:
        """The text that the model reads for a story."""
        return frame.head + fenced + frame.tail
