"""Named teachers: the file, its mistakes, and who a request means."""

from pathlib import Path

import pytest

from services.teacher.roster import Roster, RosterError, UnknownTeacherError, read_roster
from services.teacher.rubric import load_rubric
from services.teacher.settings import TeacherSettings

FILE = """
teachers:
  llama: {judge: "vllm:http://gpu:8000", mode: joint, temperature: 0.5}
  small: {judge: "transformers:org/small"}
  panel: {ensemble: [llama, small]}
"""


def roster(tmp_path: Path, text: str = FILE, teacher: str = "rules:") -> Roster:
    path = tmp_path / "teachers.yaml"
    path.write_text(text, encoding="utf-8")
    return read_roster(TeacherSettings(teacher=teacher, teachers_file=str(path)))


def test_without_a_file_there_are_the_own_teacher_and_the_rules_judge() -> None:
    found = read_roster(TeacherSettings(teacher="transformers:org/name", mode="sample"))
    assert found.names == ("default", "rules")
    assert found.teachers["default"].judge == "transformers:org/name"
    assert found.teachers["default"].chosen_mode == "sample"
    assert found.teachers["rules"].judge == "rules:"


def test_a_file_names_teachers_and_ensembles(tmp_path: Path) -> None:
    found = roster(tmp_path)
    assert found.names == ("default", "rules", "llama", "small", "panel")
    assert found.teachers["llama"].temperature == 0.5
    assert found.ensembles["panel"].ensemble == ("llama", "small")


def test_the_own_teacher_may_be_one_of_the_file(tmp_path: Path) -> None:
    found = roster(tmp_path, teacher="llama")
    assert found.teachers["default"] == found.teachers["llama"]


def test_a_rubric_lies_beside_the_file_that_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "strict.yaml").write_text(
        "{name: strict, version: '1', instructions: i, reminder: r, criteria: [{name: a, question: q, levels: [x, y]}]}"
    )
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for said in ("strict.yaml", str(tmp_path / "strict.yaml")):
        found = roster(tmp_path, f"teachers: {{a: {{judge: 'rules:', rubric: {said}}}}}")
        assert load_rubric(found.teachers["a"].rubric).name == "strict"
    assert roster(tmp_path, "teachers: {a: {judge: 'rules:', rubric: paper}}").teachers["a"].rubric == "paper"


@pytest.mark.parametrize(
    ("names", "members"),
    [
        ((), ("default",)),
        (("small",), ("small",)),
        (("panel",), ("llama", "small")),
        (("rules", "panel", "small"), ("rules", "llama", "small")),
    ],
)
def test_names_stand_for_single_teachers_each_once(
    tmp_path: Path, names: tuple[str, ...], members: tuple[str, ...]
) -> None:
    assert roster(tmp_path).members(names) == members


def test_a_name_that_nobody_has(tmp_path: Path) -> None:
    with pytest.raises(UnknownTeacherError, match="no teacher has the name 'lama'; there are default, rules, llama"):
        roster(tmp_path).members(["lama"])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("teachers: [a]", "teachers: Input should be a valid dictionary"),
        ("teachers: {a: {judge: 'gpt:4'}}", "teacher a: judge: teacher 'gpt:4' names an unknown backend"),
        ("teachers: {a: {judge: 'rules:', heat: 3}}", "heat: Extra inputs"),
        ("teachers: {'a b': {judge: 'rules:'}}", "String should match pattern"),
        ("teachers: {rules: {judge: 'rules:'}}", "which the service names itself; choose another name"),
        ("teachers: {a: {ensemble: [rules, b]}}", "ensemble a: ['b'] are no teachers of it"),
        ("teachers: {a: {ensemble: [rules]}}", "teacher a: ensemble: Tuple should have at least 2 items"),
        ("teachers: {a: {ensemble: [rules, default]}, b: {ensemble: [a, rules]}}", "['a'] are no teachers of it"),
        ("teachers: {", "is not one: while parsing"),
        ("llama: {judge: 'rules:'}", "llama: Extra inputs"),
        ("teachers:\n  a:\n    judge: rules:", "a judge that ends in a colon is quoted, judge: 'rules:'"),
        ("teachers: {a: {judge: 'rules:'}, a: {judge: rules}}", "a comes twice, near line 1"),
        ("teachers: {a: {ensemble: [rules, rules]}}", "names one twice"),
        ("teachers: {a: {judge: 'rules:', rubric: /nope}}", "teacher a: rubric '/nope' cannot be read"),
        ("teachers: {a: {judge: 'ollama:x', temperature: hot}}", "temperature: Input should be a valid number"),
        ("teachers: {a: {judge: 'ollama:x', temperature: hot}}", "found 'hot'"),
    ],
)
def test_mistakes_in_the_file_are_named(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(RosterError) as refused:
        roster(tmp_path, text)
    assert says in str(refused.value)


def test_a_missing_file_and_an_unknown_own_teacher(tmp_path: Path) -> None:
    with pytest.raises(RosterError, match=r"cannot be read .*unset FABULA_TEACHERS_FILE or mend it"):
        read_roster(TeacherSettings(teachers_file=str(tmp_path / "none.yaml")))
    with pytest.raises(RosterError, match=r"unknown backend 'larma'.*names: llama, small"):
        roster(tmp_path, teacher="larma")
    with pytest.raises(RosterError, match="'panel' is an ensemble; the default is one teacher"):
        roster(tmp_path, teacher="panel")
