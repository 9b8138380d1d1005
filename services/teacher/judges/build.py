"""From a teacher's settings to a judge. Each backend is imported only when it is asked for."""

from services.teacher.judges.base import Judge, JudgeUnavailableError
from services.teacher.rubric import Rubric
from services.teacher.spec import SERVERS, TeacherSpec


def build_judge(spec: TeacherSpec, rubric: Rubric) -> Judge:
    """The judge that `spec` describes. May take minutes: it loads the model, or waits for a server's first answers.

    Raises:
        JudgeUnavailableError: it cannot be had; the message says why and what to do.
    """
    backend = spec.target.backend
    if backend == "rules":
        from services.teacher.judges.rules import RulesJudge

        return RulesJudge(rubric)
    if backend in SERVERS:
        from services.teacher.judges.remote import build_remote_judge

        return build_remote_judge(spec, rubric)
    try:
        from services.teacher.judges.transformers_judge import load_transformers_judge
    except ImportError as error:
        cure = "type `make` in Fabula's folder, which brings it; in containers, set FABULA_TEACHER_TORCH=cpu"
        message = f"teacher {spec.judge!r} needs {error.name}, which is not here; {cure}"
        raise JudgeUnavailableError(message) from error
    return load_transformers_judge(spec, rubric)
