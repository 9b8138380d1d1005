"""deploy/prometheus by promtool: configuration, rules, the rules' own tests, and whether these can fail."""

import subprocess
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.evaluator.__main__ import parse_arguments as evaluator_arguments
from services.evaluator.adapters.job_store import JobStore
from services.evaluator.adapters.run_folder import RunFolders
from services.evaluator.device import Device
from services.evaluator.metrics import Metrics as EvaluatorMetrics
from services.teacher.__main__ import parse_arguments as teacher_arguments
from services.teacher.metrics import Metrics as TeacherMetrics
from tests.observability import DEPLOY, dashboard, names, queries, rules, tool

FOLDER = DEPLOY / "prometheus"
TESTS = ("rules_test.yml", "rules_hours_test.yml")


def promtool(*arguments: str, folder: Path = FOLDER) -> tuple[int, str]:
    """Exit status and all that it says."""
    done = subprocess.run(
        [tool("promtool"), *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


def cases() -> list[dict[str, Any]]:
    """Every expectation in the rules' tests."""
    files = [yaml.safe_load((FOLDER / name).read_text(encoding="utf-8")) for name in TESTS]
    return [case for file in files for group in file["tests"] for case in group["alert_rule_test"]]


def test_configuration_and_rules_are_accepted_and_the_rules_do_as_their_tests_say() -> None:
    status, said = promtool("check", "config", "prometheus.yml")
    assert status == 0, said
    status, said = promtool("test", "rules", *TESTS)
    assert status == 0, said


@pytest.mark.parametrize("expression", ["vector(0) > 1", "vector(1)"], ids=["never", "always"])
def test_a_rule_that_fires_never_or_always_fails_its_tests(tmp_path: Path, expression: str) -> None:
    file = yaml.safe_load((FOLDER / "rules.yml").read_text(encoding="utf-8"))
    for group in file["groups"]:
        for rule in group["rules"]:
            rule["expr"] = expression
            rule.pop("for", None)
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(file), encoding="utf-8")
    for name in TESTS:
        (tmp_path / name).write_text((FOLDER / name).read_text(encoding="utf-8"), encoding="utf-8")
    status, said = promtool("test", "rules", *TESTS, folder=tmp_path)
    assert status == 1
    assert {alert for alert in rules() if f"alertname: {alert}," in said} == set(rules()), said


def test_every_alert_is_seen_to_fire_and_to_stay_silent() -> None:
    fires = {case["alertname"] for case in cases() if case["exp_alerts"]}
    silent = {case["alertname"] for case in cases() if not case["exp_alerts"]}
    assert (fires, silent) == (set(rules()), set(rules()))


def test_every_alert_says_how_bad_it_is_and_what_is_wrong() -> None:
    for alert, rule in rules().items():
        assert rule["labels"]["severity"] in ("critical", "warning"), alert
        assert rule["annotations"]["summary"], alert
    text = (DEPLOY.parent / "docs" / "observability.md").read_text(encoding="utf-8")
    assert [alert for alert in rules() if f"`{alert}`" not in text] == []


def test_prometheus_looks_where_the_services_listen() -> None:
    config = yaml.safe_load((FOLDER / "prometheus.yml").read_text(encoding="utf-8"))
    jobs = {job["job_name"]: job for job in config["scrape_configs"]}
    defaults: dict[str, Namespace] = {"teacher": teacher_arguments([]), "evaluator": evaluator_arguments([])}
    for name, given in defaults.items():
        [found] = jobs[name]["dns_sd_configs"]
        assert (found["names"], found["type"], found["port"]) == ([name], "A", given.port)


def told(tmp_path: Path) -> set[str]:
    """Names of all metrics that the services tell, as rules ask for them."""
    teacher = TeacherMetrics()
    teacher.for_teacher("a")
    evaluator = EvaluatorMetrics(RunFolders(tmp_path), JobStore(tmp_path), Device(), None, None)
    found: set[str] = set()
    for text in (teacher.render()[0].decode(), evaluator.render()[0].decode()):
        for line in text.splitlines():
            if line.startswith("# TYPE fabula_"):
                name, kind = line.split()[2:]
                found |= {f"{name}_{part}" for part in ("bucket", "sum", "count")} if kind == "histogram" else {name}
    # These need a queue to be told of; tests/integration/test_evaluator_metrics.py has one.
    queue = {f"fabula_queue_{name}" for name in ("up", "entries", "oldest_timestamp_seconds", "dead_letters")}
    return found | queue | {"fabula_evaluator_checkpoints_total"}


def test_rules_and_dashboard_ask_for_metrics_that_exist(tmp_path: Path) -> None:
    asked = {name for _, expression in queries() for name in names(expression)}
    asked |= {name for rule in rules().values() for name in names(rule["expr"])}
    assert asked - told(tmp_path) == set()
    assert len(asked) > 30


def test_the_dashboard_is_whole() -> None:
    panels = dashboard()["panels"]
    numbers = [panel["id"] for panel in panels]
    assert len(set(numbers)) == len(numbers)
    source = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yml").read_text())["datasources"][0]
    taken: dict[tuple[int, int], str] = {}
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in taken, f"{panel['title']} lies over {taken[x, y]}"
                taken[x, y] = panel["title"]
        for target in panel.get("targets", ()):
            assert target["datasource"] == panel["datasource"] == {"type": "prometheus", "uid": source["uid"]}
            assert panel["description"]


def test_compose_mounts_what_prometheus_and_grafana_read() -> None:
    services = yaml.safe_load((DEPLOY.parent / "compose.yaml").read_text(encoding="utf-8"))["services"]
    mounts = {
        target: (DEPLOY.parent / source).resolve()
        for name in ("prometheus", "grafana")
        for source, target, *_ in (volume.split(":") for volume in services[name]["volumes"])
    }
    provisioning = mounts["/etc/grafana/provisioning"]
    [provider] = yaml.safe_load((provisioning / "dashboards" / "fabula.yml").read_text(encoding="utf-8"))["providers"]
    assert (mounts[provider["options"]["path"]] / "fabula.json").is_file()
    [source] = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
    [config] = [part for part in services["prometheus"]["command"] if part.startswith("--config.file=")]
    folder, _, file = config.removeprefix("--config.file=").rpartition("/")
    assert (mounts[folder] / file).is_file()
