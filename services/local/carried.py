"""What a folder that `fabula download` filled holds: `sources.json`, and `SHA256SUMS` as sha256sum reads it."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from services.local.errors import CommandError
from services.student_trainer.files import sha256, write_atomically

SOURCES, SUMS = "sources.json", "SHA256SUMS"


class Carried(BaseModel):
    """A repository as it was fetched. `files`: path in the folder -> SHA-256."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: str
    repository: str
    repo_type: str
    revision: str | None
    commit: str
    files: dict[str, str]

    @property
    def key(self) -> tuple[str, str, str | None]:
        """Whose older entry this one takes the place of."""
        return self.repo_type, self.repository, self.revision


_ENTRIES = TypeAdapter(list[Carried])


def record(folder: Path, fetched: Sequence[Carried]) -> None:
    """Write both files anew: `fetched`, and what earlier downloads left there.

    Raises:
        CommandError: `sources.json` is not ours.
        OSError: the folder cannot be written.
    """
    entries = {entry.key: entry for entry in (*_recorded(folder), *fetched)}.values()
    write_atomically(folder / SOURCES, _ENTRIES.dump_json(list(entries), indent=2).decode() + "\n")
    sums = {path: digest for entry in entries for path, digest in entry.files.items()}
    sums[SOURCES] = sha256(folder / SOURCES)
    write_atomically(folder / SUMS, "".join(f"{digest}  {path}\n" for path, digest in sorted(sums.items())))


def check(folder: Path) -> int:
    """Compare every file with SHA256SUMS; how many there are. Files that are not listed do not matter.

    Raises:
        CommandError: one is missing or differs, which is named; or there is no list.
    """
    lines = _lines(folder / SUMS)
    problems = list(_problems(folder, lines))
    if problems:
        raise CommandError(
            f"{len(problems)} of {len(lines)} files in {folder} are not as they were downloaded: "
            f"{'; '.join(problems)}. Copy them again from the folder that `fabula download` filled",
            exit_code=1,
        )
    return len(lines)


def _recorded(folder: Path) -> list[Carried]:
    path = folder / SOURCES
    if not path.exists():
        return []
    try:
        return _ENTRIES.validate_json(path.read_bytes())
    except ValidationError as error:
        raise CommandError(
            f"{path} was not written by `fabula download` ({error.errors()[0]['msg']}); give another folder with --to"
        ) from error


def _lines(path: Path) -> list[tuple[str, str]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(
            f"{path} cannot be read ({error}); give the folder that `fabula download` filled, whole"
        ) from error
    pairs = [line.partition("  ") for line in lines]
    if bad := next(
        (line for line, (digest, _, name) in zip(lines, pairs, strict=True) if not digest or not name), None
    ):
        raise CommandError(f"{path} holds {bad[:80]!r}; expected lines of a SHA-256 and a path. Copy it again")
    return [(digest, name) for digest, _, name in pairs]


def _problems(folder: Path, lines: Sequence[tuple[str, str]]) -> Iterator[str]:
    for digest, name in lines:
        path = folder / name
        if not path.is_file():
            yield f"{name} is missing"
        elif sha256(path) != digest:
            yield f"{name} has another SHA-256"
