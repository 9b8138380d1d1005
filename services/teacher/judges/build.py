"""From the settings to a judge. Each backend is imported only when it is asked for."""

from services.teacher.judges.base import Judge, JudgeUnavailableError
from services.teacher.rubric import Rubric
from services.teacher.settings import TeacherSettings


def build_judge(settings: TeacherSettings, rubric: Rubric) -> Judge:
    """The judge that `settings.teacher` names. May take minutes: it loads the model.

    Raises:
        JudgeUnavailableError: it cannot be had; the message says why and what to do.
    """
    if settings.backend == "rules":
        from services.teacher.judges.rules import RulesJudge

        return RulesJudge(rubric)
    try:
        from services.teacher.judges.transformers_judge import load_transformers_judge
    except ImportError as error:
        cure = "install it with: pip install 'fabula[transformers-judge]'"
        message = f"teacher {settings.teacher!r} needs {error.name}, which is not here; {cure}"
        raise JudgeUnavailableError(message) from error
    return load_transformers_judge(settings, rubric)
