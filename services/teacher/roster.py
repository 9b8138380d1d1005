"""The named teachers of a service: the settings' own, the rules judge, and those of teachers.yaml.

teachers:
  llama:
    judge: vllm:http://gpu-7:8000
    mode: joint
  small:
    judge: transformers:HuggingFaceTB/SmolLM2-360M-Instruct
  panel:
    ensemble: [llama, small]
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from services.teacher.rubric import RubricError, load_rubric, rubric_beside
from services.teacher.settings import TeacherSettings
from services.teacher.spec import TeacherSpec

DEFAULT = "default"
RULES = "rules"
SHAPE = "a file has `teachers:` with an entry a name; a judge that ends in a colon is quoted, judge: 'rules:'"
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"


class RosterError(ValueError):
    """The teachers file cannot be used; the message says what and how to mend it."""


class UnknownTeacherError(LookupError):
    """A name that no teacher has; the message lists those that there are."""


class EnsembleSpec(BaseModel):
    """Teachers that judge together; each of them is a teacher by itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ensemble: tuple[str, ...] = Field(min_length=2, max_length=16)


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    teachers: dict[Annotated[str, Field(pattern=NAME)], dict[str, Any]]


class Roster:
    """Who can be asked for by name. Immutable."""

    def __init__(self, teachers: Mapping[str, TeacherSpec], ensembles: Mapping[str, EnsembleSpec]) -> None:
        self.teachers = dict(teachers)
        self.ensembles = dict(ensembles)

    @property
    def names(self) -> tuple[str, ...]:
        """All names, the service's own teacher first."""
        return (*self.teachers, *self.ensembles)

    def members(self, names: Sequence[str]) -> tuple[str, ...]:
        """The single teachers behind `names`, ensembles taken apart, each once; nothing asked for is the default.

        Raises:
            UnknownTeacherError: nobody has such a name.
        """
        members: list[str] = []
        for name in names or (DEFAULT,):
            if name not in self.teachers and name not in self.ensembles:
                raise UnknownTeacherError(f"no teacher has the name {name[:80]!r}; there are {', '.join(self.names)}")
            members += self.ensembles[name].ensemble if name in self.ensembles else (name,)
        return tuple(dict.fromkeys(members))


def read_roster(settings: TeacherSettings) -> Roster:
    """The teachers that the settings and their teachers file name.

    Raises:
        RosterError: the file cannot be read, or is not a teachers file; or the default teacher is none of it.
    """
    teachers, ensembles = _read_file(settings.teachers_file) if settings.teachers_file else ({}, {})
    if settings.teacher in ensembles:
        raise RosterError(
            f"teacher {settings.teacher!r} is an ensemble; the default is one teacher: ask for the ensemble by name, "
            f"or put a run on it with PUT /runs/RUN/teachers"
        )
    try:
        own = teachers.get(settings.teacher) or settings.spec
    except ValidationError as error:
        raise RosterError(
            f"{_why(error)}; {settings.teachers_file} names: {', '.join(teachers) or 'nobody'}"
        ) from error
    return Roster({DEFAULT: own, RULES: TeacherSpec(judge="rules:", rubric=own.rubric), **teachers}, ensembles)


def _read_file(path: str) -> tuple[dict[str, TeacherSpec], dict[str, EnsembleSpec]]:
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8")
        rows = _File.model_validate(yaml.load(text, _Loader)).teachers  # noqa: S506  # a SafeLoader
    except (OSError, UnicodeDecodeError) as error:
        raise RosterError(
            f"teachers file {path!r} cannot be read ({error}); unset FABULA_TEACHERS_FILE or mend it"
        ) from error
    except (yaml.YAMLError, ValidationError) as error:
        raise RosterError(f"teachers file {path!r} is not one: {_why(error)}; {SHAPE}") from error
    if reserved := sorted({DEFAULT, RULES} & set(rows)):
        raise RosterError(
            f"teachers file {path!r} names {reserved}, which the service names itself; choose another name"
        )
    teachers: dict[str, TeacherSpec] = {}
    ensembles: dict[str, EnsembleSpec] = {}
    for name, row in rows.items():
        try:
            if "ensemble" in row:
                ensembles[name] = EnsembleSpec.model_validate(row)
            else:
                teachers[name] = _spec(row, Path(path).expanduser().resolve().parent)
        except ValidationError as error:
            raise RosterError(f"teachers file {path!r}, teacher {name}: {_why(error)}") from error
        except RubricError as error:
            raise RosterError(f"teachers file {path!r}, teacher {name}: {error}") from error
    known = {DEFAULT, RULES, *teachers}
    for name, spec in ensembles.items():
        if len(set(spec.ensemble)) < len(spec.ensemble):
            raise RosterError(f"teachers file {path!r}, ensemble {name}: {list(spec.ensemble)} names one twice")
        if missing := [member for member in spec.ensemble if member not in known]:
            raise RosterError(f"teachers file {path!r}, ensemble {name}: {missing} are no teachers of it")
    return teachers, ensembles


def _spec(row: Mapping[str, Any], folder: Path) -> TeacherSpec:
    """The teacher of a row of a file in `folder`, its rubric read once to see that it is one."""
    spec = TeacherSpec.model_validate(row)
    if "rubric" in row:
        spec = spec.model_copy(update={"rubric": rubric_beside(spec.rubric, folder)})
    load_rubric(spec.rubric)
    return spec


class _Loader(yaml.SafeLoader):
    """Refuses a key that comes twice, of which YAML would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        if twice := sorted({str(key) for key in keys if keys.count(key) > 1}):
            raise yaml.YAMLError(f"{', '.join(twice)} comes twice, near line {node.start_mark.line + 1}")
        return super().construct_mapping(node, deep)


def _why(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return " ".join(str(error).split())
    return "; ".join(
        f"{'.'.join(map(str, d['loc'])) or 'settings'}: {d['msg'].removeprefix('Value error, ')}, "
        f"found {repr(d['input'])[:60]}"
        for d in error.errors()
    )
