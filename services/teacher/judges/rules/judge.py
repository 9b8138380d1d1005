"""The judge itself: the embedded default teacher."""

import hashlib
from collections.abc import Sequence
from functools import cache
from importlib import resources

from fabula_proto import Story, TeacherIdentity, Verdict
from services.teacher.judges.base import Asked, JudgeUnavailableError
from services.teacher.judges.rules.classes import PACKAGE
from services.teacher.judges.rules.measures import measure
from services.teacher.judges.rules.scoring import CRITERIA, distribution, levels
from services.teacher.rubric import Rubric

MODEL = "fabula-rules"
# Whatever can change a verdict: the data, and the modules between a text and its levels.
RULE_SET = (
    *(f"data/{name}" for name in ("groups.yaml", "lexicon.tsv.gz", "grammar.json.gz", "pairs.bloom")),
    *(f"data/{name}" for name in ("topics.json.gz", "thread.json", "coherence.json")),
    *(
        f"{name}.py"
        for name in ("classes", "cues", "curves", "discourse", "entities", "grammar", "lexicon", "measures")
    ),
    *(f"{name}.py" for name in ("pairs", "readability", "repetition", "scoring", "style", "text", "topics", "tricks")),
)


@cache
def revision() -> str:
    """First 12 hexadecimal digits of the SHA-256 over every file of RULE_SET: no rule can change unseen."""
    digest = hashlib.sha256()
    folder = resources.files(PACKAGE)
    for name in RULE_SET:
        content = folder.joinpath(*name.split("/")).read_bytes()
        digest.update(content.replace(b"\r\n", b"\n") if name.endswith(".py") else content)
    return digest.hexdigest()[:12]


class RulesJudge:
    """Judges by measures alone: no weights, no randomness, the same verdict everywhere.

    Raises:
        JudgeUnavailableError: the rubric asks for a criterion that the rules do not know.
    """

    def __init__(self, rubric: Rubric) -> None:
        unknown = [c.name for c in rubric.criteria if c.name not in CRITERIA]
        if unknown:
            raise JudgeUnavailableError(
                f"the rules judge knows {', '.join(CRITERIA)}, not {', '.join(unknown)}; "
                f"take a rubric with these criteria, or a language model as the teacher"
            )
        measure("The fox found a lamp.")  # reads the data files now, not while the first story waits
        self._rubric = rubric
        self._identity = TeacherIdentity(
            backend="rules",
            model=MODEL,
            revision=revision(),
            rubric=rubric.name,
            rubric_version=rubric.version,
            rubric_hash=rubric.hash,
            mode="rules",
        )

    @property
    def identity(self) -> TeacherIdentity:
        """Backend `rules`; the revision changes with any rule, constant or data file."""
        return self._identity

    @property
    def lanes(self) -> int:
        """One: Python runs one at a time."""
        return 1

    def prepare(self, story: Story) -> Asked:
        """Nothing to make ready. The cost is in words, which is what the rules' time goes with."""
        return Asked(story, max(1, story.text.count(" ")))

    def judge(self, asked: Sequence[Asked]) -> list[Verdict]:
        """One verdict a story, in order; always ok."""
        return [self._verdict(item.story) for item in asked]

    def close(self) -> None:
        """Nothing is held."""

    def _verdict(self, story: Story) -> Verdict:
        measures = measure(story.text)
        if not measures.tells:
            return self._rubric.zero_verdict(story.id, flags=measures.flags)
        found = levels(measures)
        count = self._rubric.levels
        probabilities = {c.name: distribution(found[c.name], count) for c in self._rubric.criteria}
        return self._rubric.verdict(story.id, probabilities, flags=measures.flags)
