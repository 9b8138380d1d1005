"""What an attack is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from services.teacher.audit.material import Scene


@dataclass(frozen=True)
class Attack:
    """A way to change a story that makes it no better. A teacher that pays for it can be gamed.

    `make` is pure: the same text and the same random state give the same text.
    """

    family: str
    name: str
    what: str  # what is done, and where it was described
    make: Callable[[str, Scene], str]


@dataclass(frozen=True)
class Impostor:
    """Texts that hold no story at all. Their total itself counts: it is what a student gets for nothing."""

    family: str
    name: str
    what: str
    texts: Callable[[Scene], Sequence[str]]
