"""deploy/prometheus and deploy/grafana as tests read them, and a real Prometheus."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from services.local import ports
from tests.e2e.up_helpers import wait_until

DEPLOY = Path(__file__).resolve().parents[1] / "deploy"
RATE_INTERVAL = "10s"


def tool(name: str) -> str:
    """The path of `prometheus` or `promtool`; skips the test where it is not installed."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"no {name}: Debian's package `prometheus` has it")
    return path


def rules() -> dict[str, dict[str, Any]]:
    """Alert to rule."""
    groups = yaml.safe_load((DEPLOY / "prometheus" / "rules.yml").read_text(encoding="utf-8"))["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


def dashboard() -> dict[str, Any]:
    """The dashboard, as Grafana reads it."""
    text = (DEPLOY / "grafana" / "dashboards" / "fabula.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def queries() -> list[tuple[str, str]]:
    """Panel's title with the target's letter, and its expression."""
    return [
        (f"{panel['title']} {target['refId']}", target["expr"])
        for panel in dashboard()["panels"]
        for target in panel.get("targets", ())
    ]


def filled(expression: str, run: str) -> str:
    """The expression with Grafana's variables replaced."""
    return expression.replace("$__rate_interval", RATE_INTERVAL).replace("$run", run)


def names(expression: str) -> set[str]:
    """Our metrics that an expression asks for."""
    return set(re.findall(r"fabula_\w+", re.sub(r'"[^"]*"', "", expression)))


class Prometheus:
    """The HTTP API of a running server."""

    def __init__(self, url: str) -> None:
        self.client = httpx.Client(base_url=url, timeout=30, trust_env=False)

    def get(self, path: str, **parameters: object) -> Any:
        """The `data` of an answer; an answer that is an error fails the test."""
        answer = self.client.get(f"/api/v1/{path}", params={name: str(value) for name, value in parameters.items()})
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]

    def now(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Labels and value of each series."""
        found = self.get("query", query=expression)["result"]
        return [(series["metric"], float(series["value"][1])) for series in found]

    def over(self, expression: str, begin: float, end: float) -> list[float]:
        """Every value of every series, a second apart."""
        found = self.get("query_range", query=expression, start=begin, end=end, step=1)["result"]
        return [float(value) for series in found for _, value in series["values"]]


def static_config(targets: Mapping[str, str], rule_file: Path) -> str:
    """The shipped configuration with `targets` (job to address) in place of names in DNS, and a scrape a second."""
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"))
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(rule_file)]
    for job in config["scrape_configs"]:
        job.pop("dns_sd_configs", None)
        job["static_configs"] = [{"targets": [targets[job["job_name"]]]}]
    return yaml.safe_dump(config)


@contextmanager
def running_prometheus(folder: Path, targets: Mapping[str, str]) -> Iterator[Prometheus]:
    """A server with the shipped configuration, that looks at `targets` besides itself."""
    address = f"{ports.HOST}:{ports.any_free()}"
    file = folder / "prometheus.yml"
    file.write_text(
        static_config({**targets, "prometheus": address}, DEPLOY / "prometheus" / "rules.yml"), encoding="utf-8"
    )
    command = [tool("prometheus"), f"--config.file={file}", f"--web.listen-address={address}"]
    command += [f"--storage.tsdb.path={folder / 'tsdb'}", "--log.level=error"]
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        server = Prometheus(f"http://{address}")

        def ready() -> bool:
            assert process.poll() is None, (folder / "log").read_text(encoding="utf-8")
            try:
                return server.client.get("/-/ready").status_code == 200
            except httpx.TransportError:
                return False

        try:
            wait_until(ready, 60)
            yield server
        finally:
            server.client.close()
            process.terminate()
            process.wait(30)
