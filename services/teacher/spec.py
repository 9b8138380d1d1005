"""Who judges, and how: the settings of one teacher, named in the environment or in teachers.yaml."""

from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from services.teacher.rubric import DEFAULT_RUBRIC

LLAMA = "meta-llama/Llama-3.1-8B-Instruct"
Mode = Literal["joint", "independent", "sample"]
SAMPLE_TEMPERATURE = 0.2  # the paper's

# Backend -> how it is written. Those with a URL are servers; `#MODEL` names one of the models that a server holds.
BACKENDS: dict[str, str] = {
    "rules": "rules:",
    "transformers": "transformers:MODEL",
    "tgi": "tgi:URL",
    "vllm": "vllm:URL[#MODEL]",
    "sglang": "sglang:URL[#MODEL]",
    "llamacpp": "llamacpp:URL",
    "ollama": "ollama:MODEL or ollama:URL#MODEL",
    "openai": "openai:MODEL or openai:URL#MODEL",
}
SERVERS: dict[str, str | None] = {  # server backend -> its address where none is given
    "tgi": None,
    "vllm": None,
    "sglang": None,
    "llamacpp": None,
    "ollama": "http://127.0.0.1:11434",
    "openai": "https://api.openai.com/v1",
}
MODES: dict[str, tuple[Mode, ...]] = {  # the first is the default; none for the rules judge
    "rules": (),
    "transformers": ("joint", "independent", "sample"),
    "tgi": ("joint", "independent", "sample"),
    "vllm": ("joint", "independent", "sample"),
    "sglang": ("joint", "independent", "sample"),
    "llamacpp": ("joint", "independent", "sample"),
    "ollama": ("independent", "sample"),  # the answer so far cannot be put into the model's mouth for certain
    "openai": ("independent", "sample"),
}


class Target(BaseModel):
    """What a judge's name says: which backend, and which model or server."""

    model_config = ConfigDict(frozen=True)

    backend: str
    url: str | None = None  # of a server, without a slash at its end
    model: str | None = None  # name on the hub, folder, or a name that the server knows

    def __str__(self) -> str:
        rest = "#".join(part for part in (self.url, self.model) if part is not None)
        return f"{self.backend}:{rest}"


def parse_judge(judge: str) -> Target:
    """Read `backend[:model or URL[#model]]`.

    Raises:
        ValueError: the backend is unknown, or what follows is not what it takes.
    """
    backend, _, rest = judge.strip().partition(":")
    if backend not in BACKENDS:
        raise ValueError(
            f"teacher {judge!r} names an unknown backend {backend!r}; known are {', '.join(BACKENDS.values())}"
        )
    if backend == "rules":
        if rest:
            raise ValueError(f"teacher {judge!r}: backend rules takes no model; write 'rules:'")
        return Target(backend=backend)
    if backend == "transformers":
        return Target(backend=backend, model=rest or LLAMA)
    if not rest.startswith(("http://", "https://")):
        if (url := SERVERS[backend]) is None or not rest:
            raise ValueError(f"teacher {judge!r}: write {BACKENDS[backend]}, with a URL such as http://localhost:8000")
        return Target(backend=backend, url=url, model=rest)
    address, _, model = rest.partition("#")
    if not urlsplit(address).hostname:
        raise ValueError(f"teacher {judge!r}: {address!r} names no host; write {BACKENDS[backend]}")
    if not model and SERVERS[backend] is not None:
        raise ValueError(f"teacher {judge!r} names no model; write {BACKENDS[backend]}")
    return Target(backend=backend, url=address.rstrip("/"), model=model or None)


class JudgeSettings(BaseModel):
    """What can be set about a judge, besides which one it is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    teacher_revision: str | None = Field(default=None, description="Commit, tag or branch of a model from the hub.")
    rubric: str = Field(default=DEFAULT_RUBRIC, description="Name of a shipped rubric, or the path of a YAML file.")
    mode: Mode | None = Field(
        default=None,
        description="joint: the exact distribution over whole answers; independent: a criterion at a time; sample: one "
        "answer is drawn, as the paper does. Unset: the first of these that the backend has.",
    )
    temperature: float | None = Field(
        default=None,
        gt=0.0,
        le=10.0,
        description="Tempers each conditional. Unset: 1, and 0.2, the paper's, in mode sample.",
    )
    sample_seed: int = Field(default=42, ge=0, lt=2**32, description="Seed of mode sample.")
    min_coverage: float | None = Field(
        default=None,
        ge=0.0,
        le=1.0,
        description="Verdicts below this coverage fail. Unset: 0.5, or 0 for a model that proves untrained.",
    )
    reward_map: str | None = Field(
        default=None, description="File written by `fabula teacher compare`: puts rewards on another teacher's scale."
    )
    device: str = Field(
        default="auto", description="auto, cpu, cuda, cuda:1, mps; auto takes a GPU where there is one."
    )
    dtype: str = Field(
        default="auto",
        pattern="^(auto|float32|bfloat16|float16)$",
        description="auto is bfloat16 on a GPU and float32 on a CPU.",
    )
    api_key_env: str | None = Field(
        default=None,
        description="Name of the environment variable that holds a server's key. Unset: OPENAI_API_KEY for openai, "
        "HF_TOKEN for tgi, where they are set; no other server is sent a key.",
    )
    server_timeout_s: float = Field(default=60.0, gt=0.0, description="Longest wait for one answer of a server.")
    server_concurrency: int = Field(default=32, ge=1, description="Questions that a server is asked at once.")

    @field_validator("teacher_revision", "mode", "reward_map", "api_key_env", mode="before")
    @classmethod
    def _empty_is_unset(cls, value: object) -> object:
        # `FABULA_MODE=` in a compose file means "none".
        return None if value == "" else value


class TeacherSpec(JudgeSettings):
    """One teacher: who judges, and how."""

    judge: str = Field(description=f"Who judges: {', '.join(BACKENDS.values())}.")

    @field_validator("judge")
    @classmethod
    def _is_known(cls, value: str) -> str:
        parse_judge(value)
        return value

    @model_validator(mode="after")
    def _is_possible(self) -> Self:
        backend = self.target.backend
        if self.mode is not None and self.mode not in MODES[backend]:
            known = ", ".join(MODES[backend]) or "none, it has one way only"
            raise ValueError(f"mode {self.mode!r} is not one of backend {backend}; it has: {known}")
        return self

    @property
    def target(self) -> Target:
        """`judge`, read."""
        return parse_judge(self.judge)

    @property
    def chosen_mode(self) -> Mode:
        """The mode that is asked for, or the backend's first. Not for the rules judge."""
        return self.mode or MODES[self.target.backend][0]

    @property
    def chosen_temperature(self) -> float:
        """The temperature that is asked for, or the mode's own."""
        if self.temperature is not None:
            return self.temperature
        return SAMPLE_TEMPERATURE if self.chosen_mode == "sample" else 1.0
