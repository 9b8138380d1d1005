"""Stories to be judged, from JSON Lines or from the Parquet files of a run."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from fabula_proto import Story
from services.local.errors import CommandError

TEXT = AliasChoices("text", "story")
ID = AliasChoices("story_id", "id")


class _Row(BaseModel):
    """What a line or a row must hold; other keys are left alone."""

    model_config = ConfigDict(extra="ignore", coerce_numbers_to_str=True)

    id: str | None = Field(default=None, validation_alias=ID, min_length=1, max_length=200)
    prompt: str = ""
    text: str = Field(validation_alias=TEXT)


def read_stories(path: Path, limit: int | None = None) -> list[Story]:
    """The stories of a `.jsonl` or `.jsonl.gz` file, of a run's folder or of its stories/; at most `limit` of them.

    A line is a string, or an object with `text` or `story` and, if wanted, `story_id` or `id` and `prompt`. A story
    without an id gets its position. `limit` takes stories evenly spread, so that all of a run is seen.

    Raises:
        CommandError: there are none, a line is no story, or an id occurs twice.
    """
    path = path.expanduser()
    rows = _parquet_rows(path) if path.is_dir() else _json_rows(path)
    found: dict[str, Story] = {}
    for position, (where, row) in enumerate(rows):
        story_id = row.id if row.id is not None else str(position)
        if story_id in found:
            raise CommandError(f"{where} has the id {story_id!r} again; give each story an id of its own or none")
        found[story_id] = Story(id=story_id, prompt=row.prompt, text=row.text)
    if not found:
        raise CommandError(f"{path} holds no stories; expected at least one")
    stories = list(found.values())
    if limit is None or limit >= len(stories):
        return stories
    return [stories[place * len(stories) // limit] for place in range(limit)]


def _json_rows(path: Path) -> Iterator[tuple[str, _Row]]:
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    where = f"{path}:{number}"
                    yield where, _row(json.loads(line), where)
    except json.JSONDecodeError as error:
        raise CommandError(f"{path} is not JSON Lines ({error}); expected one story a line") from error
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"stories {str(path)!r} cannot be read ({error}); expected JSON Lines in UTF-8") from error


def _parquet_rows(folder: Path) -> Iterator[tuple[str, _Row]]:
    parts = sorted(folder.glob("part-*.parquet")) or sorted((folder / "stories").glob("part-*.parquet"))
    if not parts:
        raise CommandError(f"{folder} holds no part-*.parquet; give a run's folder, its stories/ or a JSON Lines file")
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise CommandError("stories in Parquet need pyarrow, which `make` in Fabula's folder brings") from error
    for part in parts:
        try:
            rows = pq.read_table(part, columns=["story_id", "prompt", "text"]).to_pylist()
        except (OSError, pa.ArrowException) as error:
            raise CommandError(f"{part} cannot be read ({error}); expected a run's stories") from error
        for number, row in enumerate(rows):
            yield f"{part}, row {number}", _row(row, str(part))


def _row(value: object, where: str) -> _Row:
    try:
        return _Row.model_validate({"text": value} if isinstance(value, str) else value)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "line"
        raise CommandError(f"{where} is no story ({key}: {first['msg']}); expected `text` or `story`") from error
