"""Prefect's server for the length of one command, where none is configured.

Prefect would start one by itself. But that one outlives a `kill -9` of the command, and to start it the command has to load the
whole server too, which takes seconds.
"""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from flows.launcher import ending_with_parent
from pipeline.errors import InputError, WorkError

HOST = "127.0.0.1"


@contextmanager
def server() -> Iterator[None]:
    """Let Prefect report to the server that is configured, or else to one that ends with the block, or with this process.

    Call it from the main thread, as the launcher. Raises InputError if the one that is configured does not answer, WorkError if
    the other does not start.
    """
    from prefect.client.orchestration import get_client
    from prefect.logging.handlers import APILogHandler
    from prefect.settings import PREFECT_API_URL, PREFECT_UI_URL, temporary_settings

    from flows.worker import end_process

    if url := PREFECT_API_URL.value():
        with get_client(sync_client=True) as client:
            if error := client.api_healthcheck():
                raise InputError(
                    f"PREFECT_API_URL={url}: no server answers ({error}); start it, or unset PREFECT_API_URL"
                )
        yield
        return
    # The first one on a machine makes its database, which takes 20 s.
    print("PREFECT_API_URL is not set: starting a Prefect server for this command", file=sys.stderr, flush=True)
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.temporary_server"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        process_group=0,  # the terminal's Ctrl-C is for this process, which has yet to report how it ended
        preexec_fn=ending_with_parent(),
    )
    assert process.stdout is not None
    try:
        port = process.stdout.readline().decode().strip()
        if not port:
            raise WorkError("Prefect's server did not start; what it said is above")
        # Without an address of its UI, which it does not have, no link to it is shown.
        with temporary_settings({PREFECT_API_URL: f"http://{HOST}:{port}/api", PREFECT_UI_URL: ""}):
            try:
                yield
            finally:
                APILogHandler().flush()  # before the server that the last lines go to is gone
    finally:
        end_process(process)
        process.stdout.close()


def main() -> None:
    """Serve on a port of the kernel's choice, which is told on stdout when the server is ready."""
    import uvicorn
    from prefect.server.api.server import create_app

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:  # older versions of uvicorn return where the app could not start
                print(listener.getsockname()[1], flush=True)

    with socket.socket() as listener:
        listener.bind((HOST, 0))
        app = create_app(ephemeral=True, final=True)
        Server(uvicorn.Config(app, log_level="error", lifespan="on")).run([listener])


if __name__ == "__main__":
    main()
