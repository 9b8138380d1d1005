"""How often each flag is raised on stories that nobody wrote for a judge.

    python -m services.teacher.flags stories.jsonl ratings.jsonl --words 90

prints a Markdown table, a file a row: stories, and the share with each flag in per cent.
"""

import argparse
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from services.teacher.flags import FLAGS, flag_names
from services.teacher.rubric import DEFAULT_RUBRIC, Rubric, load_rubric

COLUMNS = tuple(name for name in FLAGS if name not in ("too_short", "not_understood"))


def texts(path: Path) -> Iterator[str]:
    """The stories of a JSON Lines file: what stands under `text` or `story`.

    Raises:
        OSError, ValueError, KeyError: the file is missing or not in this form.
    """
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            yield row["text"] if "text" in row else row["story"]


def row(title: str, stories: Sequence[str], rubric: Rubric) -> str:
    """One line of the table, over at least one story."""
    raised = Counter[str]()
    for story in stories:
        names = flag_names(story, rubric)
        raised.update(("any", *names) if names else ())
    shares = (f"{100.0 * raised[name] / len(stories):.2f}" if raised[name] else "0" for name in ("any", *COLUMNS))
    return f"| {title} | {len(stories):,} | {' | '.join(shares)} |"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m services.teacher.flags", description="How often flags are raised.")
    parser.add_argument("files", nargs="+", type=Path, help="JSON Lines with `text` or `story`")
    parser.add_argument("--words", type=int, help="take so many words of each story; left out: all")
    parser.add_argument("--rubric", default=DEFAULT_RUBRIC)
    options = parser.parse_args(arguments)
    rubric = load_rubric(options.rubric)
    head = ("stories", "n", "any", *COLUMNS)
    print(f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", sep="\n")
    for path in options.files:
        stories = list(texts(path))
        if options.words is not None:
            stories = [" ".join(story.split()[: options.words]) for story in stories]
        print(row(path.name, stories, rubric))


if __name__ == "__main__":
    main()
