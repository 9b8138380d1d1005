"""A judge whose reward is put on another teacher's scale."""

from collections.abc import Sequence
from pathlib import Path

from fabula_proto import Story, TeacherIdentity, Verdict
from services.teacher.calibration.reward_map import RewardMap, RewardMapError
from services.teacher.judges.base import Asked, Judge, JudgeUnavailableError, Noted

# A map speaks for a judge that agrees in these. A new revision of the same model keeps its map, with a warning.
MUST_AGREE = ("backend", "model", "rubric_hash", "mode")


def mapped(judge: Judge, path: str | Path) -> "MappedJudge":
    """`judge` with the reward map of the file at `path`.

    Raises:
        JudgeUnavailableError: the file holds no map, or the map was fitted for another teacher.
    """
    try:
        reward_map = RewardMap.load(Path(path))
    except RewardMapError as error:
        raise JudgeUnavailableError(str(error)) from error
    fitted = reward_map.from_teacher
    differing = [
        f"{name} {getattr(fitted, name)!r}, but this teacher has {getattr(judge.identity, name)!r}"
        for name in MUST_AGREE
        if getattr(fitted, name) != getattr(judge.identity, name)
    ]
    if differing:
        raise JudgeUnavailableError(
            f"reward map {str(path)!r} was fitted for another teacher: {'; '.join(differing)}; "
            "fit one for this teacher with `fabula teacher compare`, or leave reward_map out"
        )
    return MappedJudge(judge, reward_map)


class MappedJudge:
    """Changes the reward of ok verdicts and nothing else: criteria and total stay the inner judge's own."""

    def __init__(self, judge: Judge, reward_map: RewardMap) -> None:
        self._judge = judge
        self._map = reward_map

    @property
    def identity(self) -> TeacherIdentity:
        """The inner judge's, with the map in its mode, such as `joint+map:1a2b3c4d`."""
        inner = self._judge.identity
        return inner.model_copy(update={"mode": f"{inner.mode}+map:{self._map.hash}"})

    @property
    def lanes(self) -> int:
        """The inner judge's."""
        return self._judge.lanes

    @property
    def notes(self) -> tuple[str, ...]:
        """The inner judge's, then whose scale the rewards are on, and whether the map is for another revision."""
        to, fitted, inner = self._map.to_teacher, self._map.from_teacher, self._judge.identity
        notes = [f"rewards are put on the scale of {to.backend} {to.model} ({to.mode}, revision {to.revision})"]
        if fitted.revision != inner.revision:
            notes.append(
                f"the reward map was fitted for revision {fitted.revision} and this teacher has {inner.revision}; "
                "fit it anew if scores may have changed"
            )
        return (*(self._judge.notes if isinstance(self._judge, Noted) else ()), *notes)

    def prepare(self, story: Story) -> Asked | Verdict:
        """The inner judge's preparation."""
        prepared = self._judge.prepare(story)
        return self._mapped(prepared) if isinstance(prepared, Verdict) else prepared

    def judge(self, asked: Sequence[Asked]) -> list[Verdict]:
        """One verdict a story, in order; see `Judge.judge`."""
        return [self._mapped(verdict) for verdict in self._judge.judge(asked)]

    def close(self) -> None:
        """Close the inner judge."""
        self._judge.close()

    def _mapped(self, verdict: Verdict) -> Verdict:
        if verdict.reward is None:
            return verdict
        return verdict.model_copy(update={"reward": self._map.apply(verdict.reward)})
