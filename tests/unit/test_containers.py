"""compose.yaml, the Dockerfiles and the locked dependencies, as far as they can be checked without Docker."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
COMPOSE = (ROOT / "compose.yaml").read_text(encoding="utf-8")
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE)["services"]
DOCKERFILES = {path.parent.name: path.read_text(encoding="utf-8") for path in ROOT.glob("services/*/Dockerfile")}
LOOPS = ("rules", "gpu", "tgi", "vllm")
LOCKS = {"teacher": ("teacher",), "teacher-transformers": ("teacher", "transformers-judge")} | {
    "student_trainer": ("trainer",),
    "evaluator": ("evaluator",),
}
VARIABLE = re.compile(r"\$\{([A-Z_]+)(?::?-([^}]*))?\}")
PINNED = re.compile(r"^([A-Za-z0-9_.-]+)==([^\s;\\]+)", flags=re.MULTILINE)


def dockerfile(service: dict[str, Any]) -> str:
    """Text of the Dockerfile that a service is built by; empty for an image of others."""
    return (ROOT / service["build"]["dockerfile"]).read_text(encoding="utf-8") if "build" in service else ""


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(path: Path) -> dict[str, str]:
    return {normal(name): version for name, version in PINNED.findall(path.read_text(encoding="utf-8"))}


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_may_do_little(name: str) -> None:
    service = SERVICES[name]
    user = service.get("user") or re.findall(r"^USER (\S+)", dockerfile(service), flags=re.MULTILINE)[-1]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["mem_limit"]
    assert service["stop_grace_period"]
    assert service["restart"]
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_says_whether_it_is_well(name: str) -> None:
    service = SERVICES[name]
    test = service["healthcheck"]["test"] if "healthcheck" in service else dockerfile(service).split("HEALTHCHECK ")[1]
    assert test
    assert "curl" not in str(test)


def test_services_start_when_what_they_need_is_well() -> None:
    waits = [wait for service in SERVICES.values() for wait in service.get("depends_on", {}).values()]
    assert waits
    assert all(wait == {"condition": "service_healthy"} for wait in waits)


def test_a_service_waits_for_none_that_its_profiles_leave_out() -> None:
    for service in SERVICES.values():
        for needed in service.get("depends_on", {}):
            others = SERVICES[needed].get("profiles")
            assert others is None or set(service.get("profiles", LOOPS)) <= set(others)


@pytest.mark.parametrize("profile", LOOPS)
def test_a_profile_has_one_kind_of_teacher_and_one_trainer(profile: str) -> None:
    started = [service for service in SERVICES.values() if profile in service.get("profiles", [profile])]
    builds = [service["build"]["dockerfile"] for service in started if "build" in service]
    assert sorted(builds) == [f"services/{name}/Dockerfile" for name in ("evaluator", "student_trainer", "teacher")]
    [teacher] = [service for service in started if "services/teacher" in str(service.get("build"))]
    assert teacher["networks"]["default"]["aliases"] == ["teacher"]  # the gateway and Prometheus ask for this name
    assert "ports" not in teacher  # replicas could not share one


def test_each_profile_names_its_run_by_its_own_teacher() -> None:
    trainers = [service for service in SERVICES.values() if "services/student_trainer" in str(service.get("build"))]
    named = [trainer["environment"]["FABULA_TEACHER"] for trainer in trainers]
    assert len(set(named)) == len(LOOPS)
    assert all("FABULA_TEACHER_MODEL" in name for name in named if not name.startswith("${FABULA_TEACHER:"))


@pytest.mark.parametrize("name", ["tgi", "vllm"])
def test_a_model_server_may_load_the_kernels_that_it_compiles(name: str) -> None:
    service = SERVICES[name]
    assert service["environment"]["HOME"] == "/tmp"  # noqa: S108  # where its caches go
    assert "exec" in service["tmpfs"][0]
    assert service["environment"]["USER"]  # its user 10001 has no name, which older torch asks for


def test_up_alone_starts_the_rules_profile() -> None:
    assert "COMPOSE_PROFILES=rules" in (ROOT / ".env").read_text(encoding="utf-8").splitlines()


def test_every_setting_stands_in_the_example_with_its_default() -> None:
    lines = (ROOT / ".env.example").read_text(encoding="utf-8").splitlines()
    example = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    assert example.pop("COMPOSE_PROFILES") == "rules"
    used = {(name, default) for name, default in VARIABLE.findall(COMPOSE)}
    assert len(used) == len({name for name, _ in used}), "a setting has two defaults"
    assert example == dict(used)


def test_no_secret_is_handed_over_in_the_environment() -> None:
    for name, service in SERVICES.items():
        for variable in service.get("environment", {}):
            secret = re.search(r"PASSWORD|TOKEN|SECRET|API_KEY", variable)
            assert not secret or variable.endswith(("_PATH", "_FILE", "_KEY_ENV")), f"{name}: {variable}"


def test_the_queue_forgets_nothing() -> None:
    settings = (ROOT / "deploy/queue/queue.conf").read_text(encoding="utf-8").splitlines()
    assert {"appendonly yes", "maxmemory-policy noeviction", "dir /data"} <= set(settings)
    assert "queue:/data" in SERVICES["queue"]["volumes"]


@pytest.mark.parametrize("name", DOCKERFILES)
def test_an_image_holds_its_own_service_alone(name: str) -> None:
    text = DOCKERFILES[name]
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", text, flags=re.MULTILINE)
    sources = {source for line in copied for source in line.split()}
    locks = {source for source in sources if source.startswith("deploy/lock/")}
    build = {"constraints.txt", "pyproject.toml", "README.md", "proto", "services/__init__.py", f"services/{name}"}
    assert sources - locks == build
    final = text[text.rindex("\nFROM ") :]
    assert set(re.findall(r"^COPY --from=(\S+)", final, flags=re.MULTILINE)) == {"torch", "dependencies", "package"}
    assert not re.search(r"^(ADD|.*apt-get|# *syntax=)", text, flags=re.MULTILINE)


@pytest.mark.parametrize("name", DOCKERFILES)
def test_a_signal_reaches_the_service(name: str) -> None:
    entry = re.findall(r"^(?:ENTRYPOINT|CMD) (.+)$", DOCKERFILES[name], flags=re.MULTILINE)
    assert entry[0].startswith(f'["python", "-m", "services.{name}"')
    assert all(line.startswith("[") for line in entry)  # no shell between the two


def test_what_the_images_copy_is_let_through() -> None:
    let_through = re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(encoding="utf-8"), flags=re.MULTILINE)
    for text in DOCKERFILES.values():
        for line in re.findall(r"^COPY (?!--from)(.+) \S+$", text, flags=re.MULTILINE):
            for source in line.split():
                assert (ROOT / source).exists()
                assert any(source == path or source.startswith(f"{path}/") for path in let_through), source


@pytest.mark.parametrize("name", DOCKERFILES)
def test_a_service_imports_nothing_that_its_image_lacks(name: str) -> None:
    imported = re.compile(r"^\s*(?:from|import) services\.(\w+)", flags=re.MULTILINE)
    files = sorted((ROOT / "services" / name).rglob("*.py"))
    assert files
    wanted = {module for path in files for module in imported.findall(path.read_text(encoding="utf-8"))}
    assert wanted == {name}


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_agrees_with_what_was_tested(lock: str) -> None:
    text = (ROOT / f"deploy/lock/{lock}.txt").read_text(encoding="utf-8")
    locked, tested = pins(ROOT / f"deploy/lock/{lock}.txt"), pins(ROOT / "constraints.txt")
    cure = "write the locks anew: deploy/lock.sh"
    assert {name: tested[name] for name in locked if name in tested} == {
        name: version for name, version in locked.items() if name in tested
    }, cure
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = list(project["dependencies"])
    for extra in LOCKS[lock]:
        wanted += project["optional-dependencies"][extra]
    names = {normal(re.split(r"[\s<>=\[;]", requirement)[0]) for requirement in wanted}
    assert names - {"torch"} <= set(locked), cure
    assert not [name for name in locked if re.match(r"torch$|triton|nvidia|cuda", name)]
    entries = re.split(r"\n(?=[a-z])", text)
    assert all("--hash=sha256:" in entry for entry in entries if entry.strip())


def test_the_images_install_the_torch_that_was_tested() -> None:
    assert pins(ROOT / "deploy/lock/torch.txt") == {"torch": pins(ROOT / "constraints.txt")["torch"]}


def test_the_file_keeps_the_compose_specification() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", "compose.yaml"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_docker_compose_accepts_the_file() -> None:
    program = shutil.which("docker-compose")
    if program is None:
        pytest.skip("docker-compose is not installed: its schema of compose files is not tried")
    profiles = [part for name in (*LOOPS, "observability") for part in ("--profile", name)]
    done = subprocess.run([program, *profiles, "config", "-q"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
