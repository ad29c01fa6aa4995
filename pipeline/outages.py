"""When too much of a part failed for it to be finished, for a finished part is never fetched again."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

from pipeline.addresses import is_public
from pipeline.config import DownloadConfig
from pipeline.errors import WorkError
from pipeline.fetch_error import FetchError
from pipeline.http_constants import DEFAULT_PORTS
from pipeline.stage import Counts

OUTAGE_MIN_ROWS = 20
OUTAGE_MIN_UNANSWERED = 5
SILENT_REASONS = ("dns", "connection", "timeout")  # no answer at all, not even a refusal
UNASKED_REASONS = ("private_address",)  # refused by us before the host was spoken to
REMEDIES = {
    "dns": "host names do not resolve: check the network, lower download.threads, or run a caching resolver",
    "connection": "check this machine's network and firewall",
    "timeout": "check the network; lower download.threads or raise download.timeout_s",
    "private_address": "the URLs lead into a private network: set download.allow_private_addresses if that is meant",
    "http_429": "the hosts ask to slow down: lower download.threads and wait",
}
PASSING_REMEDY = "the hosts do not answer as they should: wait, or lower download.threads"
GIVE_UP = "then run again; if the hosts are gone for good, set download.max_failed_share to 1"
OTHER_REMEDY = "look at the URLs; if the list is really that old, raise download.max_failed_share"


class DownloadError(WorkError):
    """A part that failed as a whole; nothing of it is kept, and another try may succeed."""

    def __init__(self, part: str, problem: str, remedy: str) -> None:
        super().__init__(f"download of {part}: {problem}; {remedy}")


def refuse_outage(part: str, counts: Counts, config: DownloadConfig) -> None:
    """Raise DownloadError if more than `max_failed_share` of a part failed, for a finished part is never fetched again.

    From OUTAGE_MIN_ROWS rows on every failure counts; in a smaller part dead links may make any share. In a part of any
    size, failures that may pass are an outage of their own if they are more than that share of the rows whose hosts were
    asked, and at least OUTAGE_MIN_UNANSWERED. Fewer cannot be told from a dead host or two, such as the few rows at the
    end of a long list may have: they are left to the retries (pipeline/retry.py), and then counted like every loss. With
    `max_failed_share` = 1 all are.
    """
    failed = sum(counts.dropped.values())
    passing = {reason: rows for reason, rows in counts.dropped.items() if _may_pass(reason)}
    unanswered = sum(passing.values())
    asked = counts.rows_in - sum(counts.dropped.get(reason, 0) for reason in UNASKED_REASONS)
    is_silence = unanswered >= OUTAGE_MIN_UNANSWERED and unanswered > config.max_failed_share * asked
    is_outage = counts.rows_in >= OUTAGE_MIN_ROWS and failed > config.max_failed_share * counts.rows_in
    if not (is_silence or is_outage):
        return
    listed = ", ".join(f"{reason} {rows}" for reason, rows in _most_first(counts.dropped))
    worst, _ = _most_first(passing if is_silence else counts.dropped)[0]
    raise DownloadError(
        part,
        f"an outage: {failed} of {counts.rows_in} images failed ({listed}), "
        f"more than download.max_failed_share = {config.max_failed_share:g} allows",
        f"{REMEDIES.get(worst, PASSING_REMEDY)}; {GIVE_UP}" if _may_pass(worst) else REMEDIES.get(worst, OTHER_REMEDY),
    )


def refuse_silence(part: str, counts: Counts, answered: Sequence[str], config: DownloadConfig) -> None:
    """Raise DownloadError if a later pass met silence, and hosts that had answered in the pass before are silent too.

    `answered` is a URL of each of some such hosts; they are connected to and asked for nothing. Shares tell nothing here: what
    is tried again are rows that failed, and dead hosts fail once more. One host that can be reached shows that the network works;
    without a host to try, or with `max_failed_share` = 1, the pass counts.
    """
    silent = {reason: rows for reason, rows in counts.dropped.items() if reason in SILENT_REASONS}
    if not silent or not answered or config.max_failed_share == 1:
        return
    with ThreadPoolExecutor(len(answered)) as threads:
        if any(threads.map(lambda url: _can_be_reached(url, config), answered)):
            return
    listed = ", ".join(f"{reason} {rows}" for reason, rows in _most_first(silent))
    worst, _ = _most_first(silent)[0]
    raise DownloadError(
        part,
        f"an outage: {sum(silent.values())} of {counts.rows_in} images that were tried again got no answer ({listed}), and of "
        f"{len(answered)} hosts that had answered before none can be reached",
        f"{REMEDIES[worst]}; {GIVE_UP}",
    )


def _can_be_reached(url: str, config: DownloadConfig) -> bool:
    """Whether a connection to the URL's host can be made, at an address that may be connected to."""
    parts = urlsplit(url)
    try:
        known = socket.getaddrinfo(parts.hostname, parts.port or DEFAULT_PORTS[parts.scheme], type=socket.SOCK_STREAM)
    except OSError:
        return False
    return any(
        _connects(family, at, config.timeout_s)
        for family, _, _, _, at in known
        if config.allow_private_addresses or is_public(str(at[0]))
    )


def _connects(
    family: socket.AddressFamily, address: tuple[str | int, ...] | tuple[int, bytes], timeout_s: float
) -> bool:
    try:
        with socket.socket(family, socket.SOCK_STREAM) as connected:
            connected.settimeout(timeout_s)
            return connected.connect_ex(address) == 0
    except OSError:  # a kernel without IPv6 has no such socket
        return False


def _may_pass(reason: str) -> bool:
    return not FetchError(reason, "").is_settled


def _most_first(reasons: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
