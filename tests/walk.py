"""Running `wit` as a user does, in a workspace of its own, against the session's Prefect server."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from conftest import BIN, CHECKOUT, PrefectServer, free_port

from pipeline.tiny_web.config import TinyWebConfig

WAIT_S = 200


def small_web(**values: object) -> TinyWebConfig:
    """A web with every nuisance, on ports that are free now, whose drips end soon."""
    given = {"pairs": 120, "sites": 3, "base_port": free_port() - 3, "drip_s": 6.0}
    # Three labelled images of a class: two to learn from, one to choose the penalty by.
    return TinyWebConfig.model_validate({**given, "evaluation_images": 64, "evaluation_train_images": 192, **values})


def dataset_options(web: TinyWebConfig, prefix: str = "") -> list[str]:
    """Options of `wit` that make the recipe `tiny` use this web."""
    fields = ("pairs", "sites", "base_port", "drip_s", "evaluation_images", "evaluation_train_images")
    options = [(f"source.tiny-web.{name.replace('_', '-')}", getattr(web, name)) for name in fields]
    options += [("download.image-deadline-s", 3.0), ("download.timeout-s", 2.0), ("shards.val-share", 0.1)]
    options += [("shards.samples-per-shard", 50), ("download.rows-per-part", 80)]
    return [part for name, value in options for part in (f"--{prefix}{name}", str(value))]


class Wit:
    """`wit` in one workspace."""

    def __init__(self, server: PrefectServer, workspace: Path, **environment: str) -> None:
        self.workspace = workspace
        self._env = {**server.env, "WIT_WORKSPACE": str(workspace), "OMP_NUM_THREADS": "1", **environment}

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(BIN / "wit"), *arguments],
            cwd=CHECKOUT,
            env=self._env,
            capture_output=True,
            text=True,
            timeout=WAIT_S,
            check=False,
        )

    def ok(self, *arguments: str) -> str:
        """Run a command that must end well; returns all that it said."""
        done = self.run(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def signal_at(self, line: str, number: signal.Signals, arguments: Sequence[str]) -> tuple[int, str]:
        """Start a command, signal it when it says `line`; returns its status and all that it said."""
        process = subprocess.Popen(
            [str(BIN / "wit"), *arguments],
            cwd=CHECKOUT,
            env=self._env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        assert process.stdout is not None
        said = []
        for told in process.stdout:
            said.append(told)
            if line in told:
                process.send_signal(number)
                break
        else:
            raise AssertionError(f"it never said {line!r}:\n{''.join(said)}")
        said += process.stdout.readlines()
        return process.wait(WAIT_S), "".join(said)


def processes_of(workspace: Path) -> list[str]:
    """Command lines of living processes that work for this workspace."""
    import psutil

    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("WIT_WORKSPACE") == str(workspace) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.cmdline()))
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def wait_until_quiet(workspace: Path, limit_s: float = 40) -> list[str]:
    """Wait for the processes of a workspace to end; returns those that did not."""
    deadline = time.monotonic() + limit_s
    while (left := processes_of(workspace)) and time.monotonic() < deadline:
        time.sleep(0.3)
    return left


def shard_bytes(workspace: Path, dataset: str = "tiny") -> dict[str, bytes]:
    """What the folder of shards holds, but for the stage's own marker."""
    root = workspace / "datasets" / dataset / "shards"
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name != "stage.json"
    }
