"""Judges behind a server: TGI, vLLM, SGLang, llama.cpp, Ollama, and what speaks OpenAI's API."""

from services.teacher.judges.base import Judge, JudgeUnavailableError
from services.teacher.rubric import Rubric
from services.teacher.spec import TeacherSpec


def build_remote_judge(spec: TeacherSpec, rubric: Rubric) -> Judge:
    """The judge behind the server that `spec` names."""
    raise JudgeUnavailableError(f"teacher {spec.judge!r} for rubric {rubric.name!r} is being written")
