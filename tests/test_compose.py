"""docker-compose.yml: its form, its promises, and its own commands run against a local Postgres and Redis.

Containers themselves are not started here: images, networks, volumes and the GPU reservation are checked in form only.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import BIN, CHECKOUT, end, free_port
from jsonschema import Draft7Validator
from prefect.settings.models.root import Settings
from prefect_redis.client import RedisMessagingSettings  # type: ignore[import-untyped]
from pydantic import BaseModel

COMPOSE = CHECKOUT / "docker-compose.yml"
SCHEMA = CHECKOUT / "tests" / "data" / "compose-spec.json"
ONE_SHOTS = {"migrate", "bootstrap"}
WITHOUT_A_PORT_TO_ASK = {"prefect-services"}
VARIABLE = re.compile(r"\$(?:\$|\{(?P<name>\w+)(?P<operator>:-|:\?)?(?P<argument>[^}]*)\})")
PASSWORD = "a-passw0rd@with:odd/characters"
LOGIN = "tester:secret"
DOT_ENV = {
    "POSTGRES_PASSWORD": PASSWORD,
    "PREFECT_SERVER_API_AUTH_STRING": LOGIN,
    "PREFECT_API_AUTH_STRING": LOGIN,
}


def interpolate(value: Any, variables: dict[str, str]) -> Any:
    """What Compose makes of ${NAME}, ${NAME:-default}, ${NAME:?message} and $$, all through a document."""

    def replace(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        given = variables.get(match["name"], "")
        if not given and match["operator"] == ":?":
            raise ValueError(match["argument"])
        return given or (match["argument"] if match["operator"] == ":-" else "")

    if isinstance(value, str):
        return VARIABLE.sub(replace, value)
    if isinstance(value, dict):
        return {key: interpolate(item, variables) for key, item in value.items()}
    return [interpolate(item, variables) for item in value] if isinstance(value, list) else value


def services(variables: dict[str, str] = DOT_ENV) -> dict[str, dict[str, Any]]:
    """The services as Compose sees them; a variable without a value is passed on, or dropped where .env has none."""
    found: dict[str, dict[str, Any]] = interpolate(yaml.safe_load(COMPOSE.read_text()), variables)["services"]
    for service in found.values():
        given = {
            name: variables.get(name) if value is None else value
            for name, value in service.get("environment", {}).items()
        }
        service["environment"] = {name: value for name, value in given.items() if value is not None}
    return found


def prefect_settings(model: type[BaseModel]) -> Iterator[str]:
    """Every environment variable that Prefect's settings listen to."""
    for name, info in model.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            yield from prefect_settings(info.annotation)
        yield f"{model.model_config.get('env_prefix', '')}{name}".upper()
        yield from (alias.upper() for alias in getattr(info.validation_alias, "choices", []) if isinstance(alias, str))


def test_file_obeys_the_compose_specification() -> None:
    validator = Draft7Validator(json.loads(SCHEMA.read_text()))
    written = yaml.safe_load(COMPOSE.read_text())
    assert [error.message for error in validator.iter_errors(written)] == []
    written["services"]["worker"]["stop_grace_periods"] = "1s"
    assert [error.message for error in validator.iter_errors(written)], "the schema would not see a misspelt key"


def test_every_prefect_variable_exists() -> None:
    known = {*prefect_settings(Settings), *prefect_settings(RedisMessagingSettings)}
    assert "PREFECT_API_URL" in known
    for file in (
        COMPOSE,
        *(CHECKOUT / name for name in ("Dockerfile", "Makefile", "flows/stack.py", "flows/worker.py")),
    ):
        used = set(re.findall(r"\bPREFECT_[A-Z_]+", file.read_text()))
        assert used <= known, f"{file.name}: {sorted(used - known)}"


def test_ports_are_loopback_and_images_pinned() -> None:
    for name, service in services().items():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
        assert re.search(r":\d+\.\d+", service["image"]), f"{name}: {service['image']} is not pinned"
    assert not re.search(r"minio|:latest", COMPOSE.read_text())


def test_start_order_is_sound() -> None:
    defined = services()
    for name, service in defined.items():
        if name not in ONE_SHOTS | WITHOUT_A_PORT_TO_ASK:
            assert service["healthcheck"]["test"], name
        assert ("on-failure" in service["restart"]) == (name in ONE_SHOTS)
        for needed, how in service.get("depends_on", {}).items():
            wanted = "service_completed_successfully" if needed in ONE_SHOTS else "service_healthy"
            assert how == {"condition": wanted}, f"{name} -> {needed}"
            assert "profiles" not in defined[needed], f"{name} would pull in {needed}"


def test_plain_up_needs_neither_gpu_nor_store() -> None:
    profiles = {name: service.get("profiles") for name, service in services().items()}
    assert {name for name, profile in profiles.items() if profile} == {"gpu-worker", "seaweedfs"}


def test_secrets_come_from_outside() -> None:
    with pytest.raises(ValueError, match=r"copy \.env\.example"):
        services({})
    for name, service in yaml.safe_load(COMPOSE.read_text())["services"].items():
        for variable, value in service.get("environment", {}).items():
            if re.search("PASSWORD|SECRET|AUTH|KEY", variable):
                assert value is None or value.startswith("${"), f"{name}: {variable} is written out"
    example = (CHECKOUT / ".env.example").read_text()
    asked = {match["name"] for match in VARIABLE.finditer(COMPOSE.read_text()) if match["name"]}
    assert {name for name in asked if not re.search(rf"^#?{name}=", example, re.MULTILINE)} == set()


def test_no_password_is_none_rather_than_empty() -> None:
    # Prefect's server would demand the empty password of everyone.
    for name, service in services({"POSTGRES_PASSWORD": PASSWORD}).items():
        empty = [variable for variable, value in service["environment"].items() if value == ""]
        assert not [variable for variable in empty if variable.startswith("PREFECT_")], name


def test_image_holds_what_the_dockerfile_copies() -> None:
    copied = re.findall(r"^COPY (.+) \S+$", (CHECKOUT / "Dockerfile").read_text(), re.MULTILINE)
    allowed = set(re.findall(r"^!(\S+)$", (CHECKOUT / ".dockerignore").read_text(), re.MULTILINE))
    sources = {source for line in copied for source in line.split()}
    assert sources == allowed
    assert {source for source in sources if not (CHECKOUT / source).exists()} <= {"README.md"}


@dataclass
class LocalStack:
    """The services of docker-compose.yml as processes of this machine; only addresses and folders are put in place."""

    root: Path
    ports: dict[str, int]
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def relocate(self, value: str) -> str:
        """An address or folder of the compose network, on this machine."""
        whole = {
            "postgres": "127.0.0.1",
            "redis": "127.0.0.1",
            "0.0.0.0": "127.0.0.1",
            "/workspace": str(self.root / "workspace"),
        }
        whole.update({port: str(moved) for port, moved in self.ports.items()})
        if value in whole:
            return whole[value]
        return re.sub(
            r"\b(?:redis|prefect-server|127\.0\.0\.1):(\d+)", lambda m: f"127.0.0.1:{self.ports[m[1]]}", value
        )

    def environment(self, service: str) -> dict[str, str]:
        given = services()[service]["environment"]
        base = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.root),
            "PREFECT_HOME": str(self.root / service),
            "COLUMNS": "200",
        }
        quiet = {
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            "OMP_NUM_THREADS": "1",
        }  # as in the Dockerfile
        return {**base, **quiet, **{name: self.relocate(value) for name, value in given.items()}}

    def command(self, words: list[str]) -> list[str]:
        program, *arguments = map(self.relocate, words)
        return [str(BIN / program) if (BIN / program).exists() else program, *arguments]

    def finish(
        self, service: str, words: list[str] | None = None, limit_s: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run a one-shot service, or other words in the environment of a service, to the end."""
        return subprocess.run(
            self.command(words or services()[service]["command"]),
            cwd=CHECKOUT,
            env=self.environment(service),
            capture_output=True,
            text=True,
            timeout=limit_s,
            check=False,
        )

    def start(self, service: str) -> subprocess.Popen[bytes]:
        with self.log(service).open("wb") as log:
            self.processes[service] = subprocess.Popen(
                self.command(services()[service]["command"]),
                cwd=CHECKOUT,
                env=self.environment(service),
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        return self.processes[service]

    def log(self, service: str) -> Path:
        return self.root / f"{service}.log"

    def wait_until_healthy(self, service: str, limit_s: float = 90) -> None:
        """Run the service's own health check until it passes."""
        test = services()[service]["healthcheck"]["test"]
        assert test[0] == "CMD"
        self.wait_for(
            lambda: self.finish(service, test[1:]).returncode == 0, f"{service} never became healthy", limit_s
        )

    def wait_for(self, condition: Callable[[], bool], otherwise: str, limit_s: float = 90) -> None:
        deadline = time.monotonic() + limit_s
        while not condition():
            ended = [name for name, process in self.processes.items() if process.poll() is not None]
            if ended or time.monotonic() > deadline:
                logs = "\n".join(f"--- {name}\n{self.log(name).read_text()[-3000:]}" for name in self.processes)
                pytest.fail(f"{otherwise} (ended: {ended})\n{logs}")
            time.sleep(0.3)

    def ask(self, path: str) -> Any:
        """What the API answers to one who knows the password."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.ports['4200']}/api/{path}")
        request.add_header("Authorization", "Basic " + base64.b64encode(LOGIN.encode()).decode())
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)


def postgres_binaries() -> Path | None:
    on_path = shutil.which("initdb")
    found = [Path(on_path).resolve().parent] if on_path else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return found[-1] if found else None


@contextmanager
def postgres(root: Path, port: int) -> Iterator[None]:
    """A throw-away database as the image makes it: a superuser, a password, one database."""
    binaries = postgres_binaries()
    assert binaries is not None
    wanted = services()["postgres"]["environment"]
    # Postgres refuses to run as root.
    user: dict[str, Any] = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
    (root / "password").write_text(wanted["POSTGRES_PASSWORD"])
    if user:
        shutil.chown(root, "postgres", "postgres")
        shutil.chown(root / "password", "postgres", "postgres")
    options: dict[str, Any] = {"cwd": root, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, **user}
    initdb = [
        binaries / "initdb",
        "--pgdata",
        root / "data",
        "--username",
        wanted["POSTGRES_USER"],
        "--encoding",
        "UTF8",
    ]
    initdb += ["--auth-host", "scram-sha-256", "--auth-local", "trust", "--pwfile", root / "password", "--no-sync"]
    subprocess.run(initdb, check=True, timeout=60, **options)
    place = ["-D", root / "data", "-k", root, "-h", "127.0.0.1", "-p", str(port)]
    serve = [str(word) for word in (binaries / "postgres", *place, "-c", "fsync=off")]
    server: subprocess.Popen[bytes] = subprocess.Popen(serve, **options)
    try:
        at = ["--host", str(root), "--port", str(port), "--username", wanted["POSTGRES_USER"]]
        for _ in range(100):
            if subprocess.run([binaries / "pg_isready", *at], check=False, **options).returncode == 0:
                break
            time.sleep(0.1)
        subprocess.run([binaries / "createdb", *at, wanted["POSTGRES_DB"]], check=True, timeout=30, **options)
        yield
    finally:
        server.send_signal(signal.SIGINT)  # Postgres: disconnect clients and stop
        with suppress(subprocess.TimeoutExpired):
            server.wait(10)
        end(server)


@contextmanager
def redis(root: Path, port: int) -> Iterator[None]:
    command = [*services()["redis"]["command"], "--port", str(port), "--bind", "127.0.0.1", "--dir", str(root)]
    server: subprocess.Popen[bytes] = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        end(server)


@pytest.fixture
def stack() -> Iterator[LocalStack]:
    if postgres_binaries() is None or shutil.which("redis-server") is None:
        pytest.skip("needs the programs of the packages postgresql and redis-server")
    # Not below pytest's folder: that one is closed to the user postgres.
    root = Path(tempfile.mkdtemp(prefix="wit-compose-"))
    root.chmod(0o755)
    for folder in ("postgres", "redis", "workspace"):
        (root / folder).mkdir()
    local = LocalStack(root, {port: free_port() for port in ("4200", "5432", "6379", "8080")})
    try:
        with ExitStack() as running:
            running.enter_context(postgres(root / "postgres", local.ports["5432"]))
            running.enter_context(redis(root / "redis", local.ports["6379"]))
            try:
                yield local
            finally:
                for process in reversed(local.processes.values()):
                    end(process)
    finally:
        shutil.rmtree(root, ignore_errors=True)


@pytest.mark.slow
@pytest.mark.timeout(600)  # a busy machine starts servers slowly
@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_commands_and_environments_really_work(stack: LocalStack) -> None:
    migrated = stack.finish("migrate")
    assert migrated.returncode == 0, migrated.stdout + migrated.stderr
    stack.start("prefect-server")
    stack.start("prefect-services")
    stack.wait_until_healthy("prefect-server")
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"http://127.0.0.1:{stack.ports['4200']}/api/admin/version", timeout=10)
    with urllib.request.urlopen(f"http://127.0.0.1:{stack.ports['4200']}/ui-settings", timeout=10) as answer:
        # What the browser is told must be an address of the host, not of the compose network.
        assert json.load(answer)["api_url"] == f"http://127.0.0.1:{stack.ports['4200']}/api"

    told = stack.finish("bootstrap")
    assert told.returncode == 0, told.stdout + told.stderr
    worker = stack.start("worker")
    stack.wait_until_healthy("worker")

    told = stack.finish("worker", ["prefect", "deployment", "run", "build-dataset"])
    assert told.returncode == 0, told.stdout + told.stderr
    run = "flow_runs/" + told.stdout.split("UUID: ")[1].split()[0]
    stack.wait_for(
        lambda: stack.ask(run)["state_type"] not in ("SCHEDULED", "PENDING"), "the worker never started the run"
    )

    # `docker stop`: the run ends in order and says so; it is not left as running for ever.
    del stack.processes["worker"]
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(90) == 0, stack.log("worker").read_text()
    assert stack.ask(run)["state_type"] in ("CRASHED", "COMPLETED"), stack.log("worker").read_text()
    for service in ("prefect-server", "prefect-services"):
        assert "Traceback" not in stack.log(service).read_text(), stack.log(service).read_text()[-4000:]
