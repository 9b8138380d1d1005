"""Every judge that the teacher knows, built as the teacher builds it: on our servers, or on the model folder itself."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from services.teacher.judges.base import Judge
from services.teacher.judges.build import build_judge
from services.teacher.rubric import load_rubric
from services.teacher.spec import MODES, SERVERS, TeacherSpec
from tests.wire.controls import Controls
from tests.wire.engine import Engine
from tests.wire.llamacpp import create_llamacpp
from tests.wire.model import make_judge_folder
from tests.wire.ollama import create_ollama
from tests.wire.openai_chat import create_openai_chat
from tests.wire.serving import WireServer
from tests.wire.sglang import create_sglang
from tests.wire.tgi import create_tgi
from tests.wire.vllm import create_vllm

CREATE: dict[str, Callable[[Engine, Controls], FastAPI]] = {
    "tgi": create_tgi,
    "vllm": create_vllm,
    "sglang": partial(create_sglang, deterministic=True),  # or else no seed is obeyed
    "llamacpp": create_llamacpp,
    "ollama": create_ollama,
    "openai": create_openai_chat,
}
ADDRESS = {"ollama": "{url}#tiny", "openai": "{url}/v1#tiny"}  # the others are found by their URL alone
# Every backend in every mode that it has; none is the rules judge's one way.
CASES = [(backend, mode) for backend, modes in MODES.items() for mode in (modes or (None,))]
REMOTE = [(backend, mode) for backend, mode in CASES if backend in SERVERS]
RUBRIC = load_rubric()


def case_id(case: tuple[str, str | None]) -> str:
    """Such as `vllm-joint`."""
    return "-".join(part for part in case if part)


@dataclass(frozen=True)
class Bench:
    """A model folder, the engine that serves it, and ways to put a judge on it."""

    folder: Path
    engine: Engine

    @classmethod
    def at(cls, folder: Path, **how: Any) -> "Bench":
        """Write the folder, as `make_judge_folder` does, and load it."""
        make_judge_folder(folder, **how)
        return cls(folder, Engine(folder))

    def server(self, backend: str, controls: Controls | None = None) -> WireServer:
        """A server of this kind that nobody has started yet."""
        controls = controls or Controls()
        return WireServer(CREATE[backend](self.engine, controls), controls)

    def spec(self, backend: str, mode: str | None, server: WireServer | None, **more: object) -> TeacherSpec:
        """The settings of a teacher on the server, or on the folder."""
        if backend == "rules":
            name = "rules:"
        elif server is None:
            name = f"{backend}:{self.folder}"
        else:
            name = f"{backend}:{ADDRESS.get(backend, '{url}').format(url=server.url)}"
        return TeacherSpec.model_validate({"judge": name, "mode": mode} | more)

    @contextmanager
    def judge(
        self, backend: str, mode: str | None, server: WireServer | None = None, **more: object
    ) -> Iterator[Judge]:
        """The judge; on a server of its own, where it needs one and none is given."""
        if backend in SERVERS and server is None:
            with self.server(backend) as own, self.judge(backend, mode, own, **more) as judge:
                yield judge
            return
        judge = build_judge(self.spec(backend, mode, server, **more), RUBRIC)
        try:
            yield judge
        finally:
            judge.close()
