"""The `rules` judge: transparent, deterministic measures of a story, no weights. See docs/rules-judge.md."""

from services.teacher.judges.rules.judge import RulesJudge, revision
from services.teacher.judges.rules.measures import Measures, measure
from services.teacher.judges.rules.scoring import levels

__all__ = ["Measures", "RulesJudge", "levels", "measure", "revision"]
