"""Reading a server's JSON answer without trusting it: what is missing or of another kind is a malformed answer."""

from collections.abc import Mapping
from typing import Any

from services.teacher.judges.remote.tree import MalformedAnswerError


def field(answer: object, *path: str | int) -> Any:
    """What stands at `path` in a JSON answer.

    Raises:
        MalformedAnswerError: there is nothing there.
    """
    found: Any = answer
    for step in path:
        try:
            found = found[step]
        except (KeyError, IndexError, TypeError) as error:
            where = ".".join(map(str, path))
            raise MalformedAnswerError(f"the server's answer has no {where}; is it this kind of server?") from error
    return found


def rows(answer: object, *path: str | int) -> list[Any]:
    """The list at `path` in a JSON answer; raises as `field` does."""
    found = field(answer, *path)
    if not isinstance(found, list):
        raise MalformedAnswerError(f"{'.'.join(map(str, path)) or 'the answer'} is {type(found).__name__}, no list")
    return found


def text_at(answer: object, *path: str | int) -> str:
    """The string at `path` in a JSON answer; raises as `field` does."""
    found = field(answer, *path)
    if not isinstance(found, str):
        raise MalformedAnswerError(f"{'.'.join(map(str, path))} in the server's answer is {found!r}, no text")
    return found


def ids_at(answer: object, *path: str | int) -> list[int]:
    """The list of token ids at `path` in a JSON answer; raises as `field` does."""
    found = rows(answer, *path)
    if not all(isinstance(i, int) and not isinstance(i, bool) for i in found):
        raise MalformedAnswerError(f"{'.'.join(map(str, path))} in the server's answer is not all token ids")
    return found


def limit_at(answer: Mapping[str, Any], name: str) -> int | None:
    """The positive whole number called `name`, None where there is none."""
    found = answer.get(name)
    return found if isinstance(found, int) and not isinstance(found, bool) and found > 0 else None


def as_dict(answer: object) -> dict[str, Any]:
    """The answer as an object; raises as `field` does."""
    if not isinstance(answer, dict):
        raise MalformedAnswerError(f"the server's answer is {type(answer).__name__}, no object; is it this kind?")
    return answer
