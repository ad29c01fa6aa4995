"""Starting the embedded web, for a flow or for a person's browser."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.errors import InputError
from pipeline.scratch import scratch_folder
from pipeline.tiny_web.config import TinyWebConfig


@contextmanager
def serving(config: TinyWebConfig) -> Iterator[tuple[str, ...]]:
    """Serve the embedded web from a child process; gives the first page of each site.

    Raises InputError with the server's own words if it does not start, for example because a port is in use.
    """
    with scratch_folder("tiny-web") as folder:
        file, log = Path(folder, "config.json"), Path(folder, "log.txt")
        file.write_text(config.model_dump_json(), encoding="utf-8")
        command = [
            sys.executable,
            "-m",
            "pipeline.tiny_web.server",
            "--config",
            str(file),
            "--end-with-parent",
            str(os.getpid()),
        ]
        with log.open("wb") as errors:
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=errors, stdin=subprocess.DEVNULL, text=True
            )
        try:
            yield _wait_for_seeds(process, log)
        finally:
            process.terminate()
            process.wait()


def _wait_for_seeds(process: subprocess.Popen[str], log: Path) -> tuple[str, ...]:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        process.wait()
        words = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        last = words[-1] if words else f"the embedded web ended with status {process.returncode} and said nothing"
        raise InputError(last.removeprefix("error: "))
    return tuple(json.loads(line)["seeds"])


def serve(config: TinyWebConfig) -> None:
    """Serve the embedded web until Ctrl-C, and say where."""
    with serving(config) as seeds:
        print("The embedded web; Ctrl-C ends it.", *seeds, sep="\n  ", flush=True)
        with suppress(KeyboardInterrupt):
            threading.Event().wait()
