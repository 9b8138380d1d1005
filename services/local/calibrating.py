"""`fabula teacher compare` and `fabula teacher calibrate`: from what the user names to reports."""

import os
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from fabula_proto import Story
from services.local.errors import CommandError, not_installed
from services.local.scorers import Scored, judged_criteria, score_stories
from services.local.story_files import read_stories

try:
    from services.teacher.calibration.agreement import Calibration, CalibrationError, checked_pairs
    from services.teacher.calibration.agreement import calibrate as agreement_with_people
    from services.teacher.calibration.comparison import Comparison, ComparisonError, Side
    from services.teacher.calibration.comparison import compare as agreement_of_two
    from services.teacher.calibration.estimates import groups_by_prompt
    from services.teacher.calibration.linking import MIN_STORIES
    from services.teacher.calibration.ratings import Rated, RatingsError, criteria_of, half, read_ratings
except ImportError as error:
    raise not_installed(error) from error


def compare(
    a: str, b: str, stories_path: Path, limit: int | None, map_out: Path | None, console: Console
) -> Comparison:
    """Have A and B judge the same stories; progress goes to `console`.

    Nothing is judged where it is known before that B cannot judge, or that no map can come to `map_out`.

    Raises:
        CommandError: a side cannot judge, the stories cannot be read, there is nothing to compare, or no map can be.
    """
    if map_out is not None:
        _check_writable(map_out)
    stories = read_stories(stories_path, limit)
    if map_out is not None and len(stories) < MIN_STORIES:
        raise CommandError(
            f"--map-out needs at least {MIN_STORIES} stories and gets {len(stories)} of {stories_path}; "
            "raise --limit, give a file with more, or leave --map-out out"
        )
    judged_criteria(b, stories)
    # One after the other: two large models need not fit beside each other.
    scored_a, scored_b = _score(a, stories, console), _score(b, stories, console)
    side_a, side_b = Side(a, scored_a.teacher, scored_a.verdicts), Side(b, scored_b.teacher, scored_b.verdicts)
    groups = groups_by_prompt([story.prompt for story in stories])
    try:
        return agreement_of_two(side_a, side_b, groups, f"fabula {metadata.version('fabula')} teacher compare")
    except ComparisonError as error:
        raise CommandError(str(error), exit_code=1) from error


def calibrate(
    side: str,
    ratings_path: Path,
    split: str,
    leave_out: Sequence[str],
    pairs: Sequence[str],
    console: Console,
) -> Calibration:
    """Have `side` judge stories that people rated; progress goes to `console`.

    Args:
        side: see `score_stories`.
        ratings_path: JSON Lines, see docs/calibration.md.
        split: tune, test or all.
        leave_out: systems whose stories are left out.
        pairs: OURS=THEIRS; none takes those that go together by name.
        console: where progress is shown.

    Raises:
        CommandError: the ratings cannot be read, the teacher cannot judge, or there is nothing to compare.
    """
    chosen = [_pair(pair) for pair in pairs]
    try:
        rated = read_ratings(ratings_path.expanduser())
    except RatingsError as error:
        raise CommandError(str(error)) from error
    if unknown := sorted(set(leave_out) - (systems := {row.system for row in rated if row.system})):
        raise CommandError(f"no story is by {', '.join(unknown)}; the file has {', '.join(sorted(systems)) or 'none'}")
    written = [row for row in rated if row.system not in leave_out]
    if not written:
        systems_out = " ".join(f"--leave-out {system}" for system in leave_out)
        raise CommandError(f"{systems_out} leaves no story of {ratings_path}; leave fewer systems out")
    kept = [row for row in written if split in ("all", half(row.prompt))]
    if not kept:
        raise CommandError(f"no story of {ratings_path} is left of split {split}; try --split all")
    _check_pairs(side, kept, chosen)
    scored = _score(side, [row.story for row in kept], console)
    selection = "all stories" if split == "all" else f"{split} half"
    if leave_out:
        selection += f" without {', '.join(leave_out)}"
    try:
        return agreement_with_people(
            kept, scored.verdicts, chosen, scored.teacher, ratings=ratings_path.name, selection=selection
        )
    except CalibrationError as error:
        raise CommandError(str(error), exit_code=1) from error


def save_map(comparison: Comparison, path: Path) -> str:
    """Write the map of a comparison; what to do with it, in a sentence.

    Raises:
        CommandError: there is no map, or the file cannot be written.
    """
    if comparison.mapping is None:
        raise CommandError(f"there is no map to write to {path}: {comparison.no_map}", exit_code=1)
    try:
        comparison.mapping.reward_map.save(path.expanduser())
    except OSError as error:
        raise CommandError(
            f"the map cannot be written to {path}: {error.strerror}; give another path", exit_code=1
        ) from error
    return f"Map written to {path}; B wears it with `reward_map: {path}` in teachers.yaml, or FABULA_REWARD_MAP={path}."


def _check_writable(path: Path) -> None:
    path = path.expanduser()
    try:
        if not path.parent.is_dir():
            raise CommandError(f"--map-out {path}: there is no folder {path.parent}; make it, or give another path")
        if path.is_dir():
            raise CommandError(f"--map-out {path} is a folder; give a file such as {path / 'map.json'}")
        if not os.access(path if path.exists() else path.parent, os.W_OK):
            raise CommandError(f"--map-out {path} may not be written by you; give another path")
    except OSError as error:
        raise CommandError(f"--map-out {path} cannot be: {error.strerror}; give another path") from error


def _check_pairs(side: str, rated: Sequence[Rated], pairs: Sequence[tuple[str, str]]) -> None:
    """Refuse a wrong name before everything is judged."""
    if ours := judged_criteria(side, [row.story for row in rated]):
        try:
            checked_pairs(ours, criteria_of(rated), pairs)
        except CalibrationError as error:
            raise CommandError(str(error)) from error


def _score(side: str, stories: Sequence[Story], console: Console) -> Scored:
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task(f"{side} judges {len(stories)} stories", total=len(stories))
        return score_stories(side, stories, lambda done: progress.advance(task, done))


def _pair(pair: str) -> tuple[str, str]:
    ours, equals, theirs = pair.partition("=")
    if not (ours and equals and theirs):
        raise CommandError(f"--pair {pair!r} is no pair; write it like creativity=engagement, ours first")
    return ours, theirs
