"""Several teachers as one: the mean of their distributions, with their disagreement. Pure mathematics.

An ensemble judges a story only where every member does: a mean over those that happened to answer would be a number of
another scale.
"""

import hashlib
from collections.abc import Mapping, Sequence
from statistics import fmean, pstdev

from fabula_proto import CriterionScore, TeacherIdentity, Verdict, VerdictStatus


def ensemble_identity(members: Mapping[str, TeacherIdentity]) -> TeacherIdentity:
    """Who judges where `members` judge together; the revision follows from everything that tells them apart.

    Raises:
        ValueError: they judge by different rubrics.
    """
    rubrics = {name: identity.rubric_hash for name, identity in members.items()}
    if len(set(rubrics.values())) > 1:
        raise ValueError(f"teachers of an ensemble must share a rubric, found {rubrics} (hash of each one's rubric)")
    digest = hashlib.sha256()
    for name, identity in sorted(members.items()):
        digest.update(f"{name}\n{identity.to_json()}\n".encode())
    first = next(iter(members.values()))
    return TeacherIdentity(
        backend="ensemble",
        model="+".join(members),
        revision=digest.hexdigest()[:12],
        rubric=first.rubric,
        rubric_version=first.rubric_version,
        rubric_hash=first.rubric_hash,
        mode="ensemble",
    )


def combine(members: Mapping[str, Verdict]) -> Verdict:
    """One verdict from the members' verdicts of the same story.

    Probabilities, total and reward are means; the coverage is the least; a criterion's disagreement is the population
    standard deviation of the members' means, in levels. Where a member failed or refused, so does the ensemble.
    """
    verdicts = list(members.values())
    for status in (VerdictStatus.REFUSED, VerdictStatus.FAILED):
        if reasons := [f"{name}: {v.reason}" for name, v in members.items() if v.status is status]:
            flags = _flags(verdicts)
            return Verdict(story_id=verdicts[0].story_id, status=status, reason="; ".join(reasons), flags=flags)
    criteria = [v.criteria or {} for v in verdicts]
    totals = {name: v.total or 0.0 for name, v in members.items()}
    return Verdict(
        story_id=verdicts[0].story_id,
        status=VerdictStatus.OK,
        criteria={name: _mean([scores[name] for scores in criteria]) for name in criteria[0]},
        total=fmean(totals.values()),
        reward=fmean(v.reward or 0.0 for v in verdicts),
        coverage=min(v.coverage or 0.0 for v in verdicts),
        flags=_flags(verdicts),
        members=totals,
        cached=all(v.cached for v in verdicts),
    )


def _mean(scores: Sequence[CriterionScore]) -> CriterionScore:
    probabilities = [fmean(level) for level in zip(*(score.probabilities for score in scores), strict=True)]
    return CriterionScore.from_probabilities(probabilities, disagreement=pstdev(score.mean for score in scores))


def _flags(verdicts: Sequence[Verdict]) -> tuple[str, ...]:
    return tuple(sorted({flag for verdict in verdicts for flag in verdict.flags}))
