"""Whoever gives verdicts for stories: a teacher in this process, one that runs elsewhere, or a recording."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from pydantic import ValidationError

from fabula_proto import ScoreResponse, Story, TeacherIdentity, Verdict
from services.local import http
from services.local.errors import CommandError
from services.local.partial_verdicts import Memory, NoMemory
from services.local.scoring import settings_problem

if TYPE_CHECKING:
    from services.teacher.desk import Desk, Judged, Panel, Work
    from services.teacher.rubric import Rubric

CHUNK_STORIES = 64
CHUNKS_IN_HAND = 4  # a judge with several lanes has work for all of them

Advance = Callable[[int], None]


@dataclass(frozen=True)
class Scored:
    """Verdicts in the order of the stories, and who gave them; None where a recording does not know the story."""

    teacher: TeacherIdentity
    verdicts: list[Verdict | None]


def score_stories(side: str, stories: Sequence[Story], advance: Advance, memory: Memory | None = None) -> Scored:
    """Verdicts of `side` for `stories`; `advance` is told how many more are done.

    With a `memory`, what it knows is not judged again, and it is given each verdict as it comes; story ids are unique.

    `side` is a judge such as `rules:` or a name of the teachers file, the URL of a running teacher (with
    `?teacher=NAME` if wanted), or a file: answers of POST /score, one a line, or `ratings.jsonl#JUDGE`.

    Raises:
        CommandError: there is no such teacher, it cannot judge, or a file cannot be used.
    """
    memory = memory or NoMemory()
    if _is_url(side):
        return _by_url(side, stories, advance, memory)
    if (recorded := _recorded(side)) is not None:
        advance(len(stories))
        return Scored(recorded.teacher, [recorded.verdicts.get(story.id) for story in stories])
    return _here(side, stories, advance, memory)


def judged_criteria(side: str, stories: Sequence[Story]) -> tuple[str, ...]:
    """The criteria that `side` judges, looked up before it judges all of `stories`; none where it does not say.

    A running teacher is given the first story, which also says whether it can be asked at all.

    Raises:
        CommandError: as `score_stories`, as far as it can be known.
    """
    verdicts: Iterable[Verdict | None]
    if _is_url(side):
        verdicts = _by_url(side, stories[:1], lambda _: None, NoMemory()).verdicts
    elif (recorded := _recorded(side)) is not None:
        verdicts = recorded.verdicts.values()
    else:
        return tuple(criterion.name for criterion in rubric_here(side).criteria)
    return next((tuple(v.criteria) for v in verdicts if v is not None and v.criteria), ())


def rubric_here(side: str) -> "Rubric":
    """By what a judge such as `rules:`, or a name of the teachers file, judges.

    Raises:
        CommandError: there is no such teacher, or its rubric cannot be read.
    """
    from services.teacher.roster import RosterError, read_roster
    from services.teacher.rubric import RubricError, load_rubric
    from services.teacher.settings import TeacherSettings

    try:
        settings = TeacherSettings(redis_url=None)
        roster = read_roster(settings) if settings.teachers_file is not None and _may_be_name(side) else None
        if roster is not None and side in roster.names:
            spec = roster.teachers[roster.members((side,))[0]]
        else:
            spec = TeacherSettings(teacher=side, teachers_file=None, redis_url=None).spec
        return load_rubric(spec.rubric)
    except (RosterError, RubricError) as error:
        raise CommandError(str(error), exit_code=1) from error
    except ValueError as error:
        raise CommandError(settings_problem(error)) from error


def _may_be_name(side: str) -> bool:
    """Whether the teachers file is to be asked: `rules:` and the like are no names, and need no file in order."""
    return ":" not in side


def _is_url(side: str) -> bool:
    return side.startswith(("http://", "https://"))


def _recorded(side: str) -> "_Recording | None":
    """What the file that `side` names holds; None where it names none."""
    name, _, judge = side.partition("#")
    path = Path(name).expanduser()
    if not path.is_file() and not name.endswith((".jsonl", ".json")):
        return None
    return _ratings(path, judge) if judge else _answers(path)


def _chunks(stories: Sequence[Story]) -> Iterator[Sequence[Story]]:
    for start in range(0, len(stories), CHUNK_STORIES):
        yield stories[start : start + CHUNK_STORIES]


def _by_url(url: str, stories: Sequence[Story], advance: Advance, memory: Memory) -> Scored:
    parts = urlsplit(url)
    query = parse_qsl(parts.query, keep_blank_values=True)
    if unknown := sorted({key for key, _ in query} - {"teacher"}):
        raise CommandError(f"{url}: {', '.join(unknown)} is no option of a teacher's address; write ?teacher=NAME")
    address = urlunsplit((parts.scheme, parts.netloc, parts.path, "", ""))
    teachers = [name for _, name in query]
    found: list[Verdict | None] = []
    teacher: TeacherIdentity | None = None
    known: Mapping[str, Verdict] = {}  # from the first chunk on: who the teacher is stands in its answer
    for chunk in _chunks(stories):
        asked = [story for story in chunk if story.id not in known]
        new: list[Verdict] = []
        if asked:
            response = http.score(address, [story.text for story in asked], teachers)
            if teacher is not None and response.teacher != teacher:
                raise CommandError(
                    f"the teacher at {url} changed after {len(found)} stories, from {teacher.model} {teacher.revision} "
                    f"to {response.teacher.model} {response.teacher.revision}; ask again when it stays the same",
                    exit_code=1,
                )
            new = [
                verdict.model_copy(update={"story_id": story.id})
                for story, verdict in zip(asked, response.verdicts, strict=True)
            ]
            if teacher is None:
                teacher, known = response.teacher, memory.known(response.teacher)
                asked_ids = {story.id for story in asked}
                known = {name: verdict for name, verdict in known.items() if name not in asked_ids}
            memory.keep(teacher, new)
        found += _in_order(chunk, known, new)
        advance(len(chunk))
    if teacher is None:
        raise CommandError("0 stories to judge; give at least one")
    return Scored(teacher, found)


def _in_order(stories: Sequence[Story], known: Mapping[str, Verdict], new: Iterable[Verdict]) -> Iterator[Verdict]:
    """A verdict a story: the known one, else the next of the new ones."""
    rest = iter(new)
    yield from (known[story.id] if story.id in known else next(rest) for story in stories)


def _here(side: str, stories: Sequence[Story], advance: Advance, memory: Memory) -> Scored:
    # Imported here: a judge may bring torch, and most commands need none.
    from services.teacher.desk import Panel
    from services.teacher.judges.base import JudgeUnavailableError
    from services.teacher.roster import RosterError, read_roster
    from services.teacher.rubric import RubricError
    from services.teacher.service import TeacherService
    from services.teacher.settings import TeacherSettings

    with ExitStack() as closing:
        try:
            settings = TeacherSettings(redis_url=None)
            named = settings.teachers_file is not None and _may_be_name(side) and side in read_roster(settings).names
            if not named:  # the environment's reward map is for its own teacher, not for whoever is looked at here
                settings = TeacherSettings(teacher=side, teachers_file=None, redis_url=None, reward_map=None)
            service = TeacherService(settings)
            closing.callback(service.stop)
            roster = service.registry.roster()
            desks: dict[str, Desk] = {}
            for name in roster.members((side,) if named else ()):
                # Not through the registry, which goes on trying where a server is away: here somebody waits.
                desks[name] = service.build_desk(name, roster.teachers[name])
                closing.callback(desks[name].close)
            panel = Panel(desks)
            known = memory.known(panel.identity)
            asked = [story for story in stories if story.id not in known]
            advance(len(stories) - len(asked))
            new: list[Verdict] = []
            for judged in _judged(panel, asked, advance):
                memory.keep(panel.identity, judged.verdicts)
                new += judged.verdicts
            return Scored(panel.identity, list(_in_order(stories, known, new)))
        except (JudgeUnavailableError, RosterError, RubricError) as error:
            raise CommandError(f"{side}: {error}", exit_code=1) from error
        except ValueError as error:
            raise CommandError(settings_problem(error)) from error


def _judged(panel: "Panel", stories: Sequence[Story], advance: Advance) -> Iterator["Judged"]:
    in_hand: deque[Work] = deque()

    def oldest() -> "Judged":
        judged = in_hand.popleft().finish()
        advance(len(judged.verdicts))
        return judged

    for chunk in _chunks(stories):
        in_hand.append(panel.admit(chunk, patient=True))
        if len(in_hand) == CHUNKS_IN_HAND:
            yield oldest()
    while in_hand:
        yield oldest()


@dataclass(frozen=True)
class _Recording:
    teacher: TeacherIdentity
    verdicts: dict[str, Verdict]


def _answers(path: Path) -> _Recording:
    """Answers of POST /score, one a line, all of one teacher."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"recording {str(path)!r} cannot be read: {error}") from error
    responses: list[ScoreResponse] = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                responses.append(ScoreResponse.from_json(line))
            except ValidationError as error:
                raise CommandError(
                    f"{path}:{number} is no answer of POST /score ({error.errors()[0]['msg']}); write one answer a "
                    "line, or name a judge of a ratings file: FILE#human"
                ) from error
    verdicts = {verdict.story_id: verdict for response in responses for verdict in response.verdicts}
    identities = {response.teacher for response in responses}
    if len(identities) != 1:
        raise CommandError(f"{path} holds answers of {len(identities)} teachers; expected of one")
    if len(verdicts) != sum(len(response.verdicts) for response in responses):
        raise CommandError(f"{path} holds two verdicts for a story; give stories ids of their own in each request")
    return _Recording(identities.pop(), verdicts)


def _ratings(path: Path, judge: str) -> _Recording:
    """What people (`human`) or a language model of a ratings file say."""
    from services.teacher.calibration import ratings

    try:
        rated = ratings.read_ratings(path)
    except ratings.RatingsError as error:
        raise CommandError(str(error)) from error
    criteria = ratings.criteria_of(rated, judge)
    if not criteria:
        known = ", ".join((ratings.HUMAN, *ratings.judges_of(rated)))
        raise CommandError(f"{path} has no ratings by {judge!r}; it has {known}")
    verdicts = {row.story_id: row.verdict(judge, criteria) for row in rated}
    return _Recording(ratings.rater_identity(path.name, judge, criteria), verdicts)
