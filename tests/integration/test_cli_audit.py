"""`fabula teacher audit` against a teacher over a real socket, and in the process of the command."""

import io
import json
from functools import cache

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from services import cli_audit
from services.local.auditing import run_audit
from services.local.errors import CommandError
from services.teacher.audit import AuditReport, run, scorer
from services.teacher.screening import ScreenedJudge
from tests.teacher_helpers import WordJudge, teacher

app = typer.Typer()
app.command("other")(lambda: None)  # with one command alone, typer takes no name
app.command()(cli_audit.audit)


def quiet() -> Console:
    return Console(file=io.StringIO())


@cache
def expected() -> AuditReport:
    judge = WordJudge()
    screened = ScreenedJudge(judge, judge.rubric, max_chars=100_000)
    return run(scorer(screened), judge.identity, judge.rubric.criteria, quick=True, seed=1)


def test_a_running_teacher_is_audited_as_it_would_be_in_process() -> None:
    with teacher(WordJudge()) as client:
        report = run_audit(str(client.base_url), seed=1, quick=True, console=quiet())
    assert report == expected()
    assert report.base == {"good": 9.0, "plain": 9.0, "weak": 9.0}  # by the word, and 30 are enough
    assert {a.name: a.flagged for a in report.attacks}["orders after"] == 1.0  # flags travel with the verdicts


def test_the_command_prints_json_markdown_and_a_table() -> None:
    with teacher(WordJudge()) as client:
        command = ["audit", "--url", str(client.base_url), "--quick", "--seed", "1"]
        as_json, as_markdown, plain = (
            CliRunner().invoke(app, [*command, *form]) for form in (["--json"], ["--markdown"], [])
        )
    assert AuditReport.model_validate(json.loads(as_json.stdout)) == expected()
    assert as_markdown.stdout.startswith("Teacher words (words, revision 1)")
    assert "attacks gain beyond chance" in plain.stdout


def test_in_process_with_the_rules() -> None:
    result = CliRunner().invoke(app, ["audit", "--teacher", "rules:", "--quick", "--json"])
    report = AuditReport.model_validate(json.loads(result.stdout))
    assert (report.teacher.backend, report.quick, report.max_total) == ("rules", True, 9)


def test_what_cannot_be_audited_is_said() -> None:
    with pytest.raises(CommandError, match="unknown backend 'nobody'"):
        run_audit("nobody:", seed=0, quick=True, console=quiet())
    with pytest.raises(CommandError, match=r"no teacher answers at http://127\.0\.0\.1:1 .*start one with"):
        run_audit("http://127.0.0.1:1", seed=0, quick=True, console=quiet())
    for both in (["--json", "--markdown"], ["--teacher", "rules:", "--url", "http://127.0.0.1:1"]):
        assert isinstance(CliRunner().invoke(app, ["audit", *both]).exception, CommandError)
