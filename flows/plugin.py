"""Lets Prefect's own command work as one would type it in this checkout: `prefect deployment run build-dataset`.

Prefect wants FLOW/DEPLOYMENT and splits the name before it asks the server, so no name on the server could do it. This
is a plugin of Prefect's documented kind (entry-point group `prefect.plugins`, hook `setup_environment`), switched on by
[tool.prefect.plugins] in pyproject.toml, hence only where the current directory is this checkout. It does two things:

- a deployment name without "/" means the flow of that name: its only deployment, or the one called `default`;
- while `make up` runs, commands find its server without PREFECT_API_URL. An address the user configured always wins.

The hook is meant for environment variables, and so is the second; the first wraps one public client method, which
Prefect may rename: tests/test_plugin.py runs the literal command against a real server. Nothing heavy may be imported
here, for every `import prefect` in this checkout loads it.
"""

from __future__ import annotations

import functools
import os
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import urlsplit

from prefect.plugins import SetupResult, register_hook

if TYPE_CHECKING:
    from prefect.client.schemas.filters import FlowFilter
    from prefect.client.schemas.responses import DeploymentResponse
    from prefect.plugins import HookContext

CHECKOUT = Path(__file__).resolve().parents[1]
DEFAULT_DEPLOYMENT = "default"
CONNECT_TIMEOUT_S = 0.5


def stack_home() -> Path:
    """Folder of the server that `make up` runs: $PREFECT_HOME, else workspace/prefect of the checkout."""
    given = os.environ.get("PREFECT_HOME")
    return Path(given).expanduser() if given else CHECKOUT / "workspace" / "prefect"


def address_file(home: Path) -> Path:
    """Where a running stack leaves the URL of its API."""
    return home / "stack.url"


@register_hook  # type: ignore[untyped-decorator, unused-ignore]  # pluggy's marker is typed only where pluggy is
def setup_environment(*, ctx: HookContext) -> SetupResult | None:
    """Prefect's start-up hook: accept bare names, and point at the running stack if nothing else is configured."""
    _accept_bare_names()
    url = None if ctx.api_url else running_stack_url()
    if not url:
        return None
    links = {} if "PREFECT_UI_URL" in os.environ else {"PREFECT_UI_URL": ui_url(url)}
    return SetupResult(env={"PREFECT_API_URL": url, **links})


def ui_url(api_url: str) -> str:
    """Where links to runs lead: Prefect's newer UI, which draws the charts; without its path they open the older one."""
    return api_url.removesuffix("/api") + "/v2"


def running_stack_url() -> str | None:
    """URL of the API that `make up` started in this checkout and that still listens."""
    try:
        url = address_file(stack_home()).read_text().strip()
        address = urlsplit(url)
        with socket.create_connection((address.hostname or "", address.port or 0), CONNECT_TIMEOUT_S):
            return url
    except OSError:
        return None  # never started here, or ended without tidying up


def choose(bare_name: str, candidates: Sequence[DeploymentResponse]) -> DeploymentResponse:
    """The deployment that is meant by the flow's name; none, or several without a default, is refused."""
    named_default = [candidate for candidate in candidates if candidate.name == DEFAULT_DEPLOYMENT]
    if len(candidates) > 1 and not named_default:
        names = ", ".join(sorted(f"{bare_name}/{candidate.name}" for candidate in candidates))
        _refuse(
            f"The flow {bare_name!r} has several deployments, none called {DEFAULT_DEPLOYMENT!r}; name one: {names}"
        )
    if not candidates:
        _refuse(
            f"No deployment of a flow {bare_name!r} on {_server()}. "
            "`prefect deployment ls` shows what there is; `make up` starts a server and deploys this project's flows."
        )
    return named_default[0] if named_default else candidates[0]


def _accept_bare_names() -> None:
    from prefect.client.orchestration import PrefectClient, SyncPrefectClient

    # `import prefect` calls the hook once, `prefect plugins diagnose` again.
    if getattr(PrefectClient.read_deployment_by_name, "accepts_bare_names", False):
        return
    PrefectClient.read_deployment_by_name = _wrap_async(PrefectClient.read_deployment_by_name)  # type: ignore[method-assign]
    SyncPrefectClient.read_deployment_by_name = _wrap_sync(SyncPrefectClient.read_deployment_by_name)  # type: ignore[method-assign]


def _wrap_async(full_name_only: Callable[..., Awaitable[DeploymentResponse]]) -> Callable[..., Any]:
    @functools.wraps(full_name_only)
    async def read_deployment_by_name(self: Any, name: str) -> DeploymentResponse:
        if "/" in name:
            return await full_name_only(self, name)
        return choose(name, await self.read_deployments(flow_filter=_flow_called(name)))

    read_deployment_by_name.accepts_bare_names = True  # type: ignore[attr-defined]
    return read_deployment_by_name


def _wrap_sync(full_name_only: Callable[..., DeploymentResponse]) -> Callable[..., Any]:
    @functools.wraps(full_name_only)
    def read_deployment_by_name(self: Any, name: str) -> DeploymentResponse:
        if "/" in name:
            return full_name_only(self, name)
        return choose(name, self.read_deployments(flow_filter=_flow_called(name)))

    return read_deployment_by_name


def _flow_called(name: str) -> FlowFilter:
    from prefect.client.schemas.filters import FlowFilter, FlowFilterName

    return FlowFilter(name=FlowFilterName(any_=[name]))


def _server() -> str:
    from prefect.settings import PREFECT_API_URL

    return PREFECT_API_URL.value() or "a temporary server (no PREFECT_API_URL is set and `make up` does not run here)"


def _refuse(message: str) -> NoReturn:
    # Prefect's command shows a traceback for every exception but SystemExit; a program that calls the client wants a
    # true exception.
    program = Path(sys.argv[0])
    if program.stem == "prefect" or program.parts[-2:] == ("prefect", "__main__.py"):
        raise SystemExit(message)
    raise ValueError(message)
