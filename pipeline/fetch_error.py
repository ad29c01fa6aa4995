"""Why an image was not fetched, in the words of the funnel."""

from __future__ import annotations

import math

from pipeline.sources.robots import retry_after_s
from pipeline.tdm_rules import TDM_HEADER

# Another try may end otherwise: these statuses (and those from 500 on), and what goes wrong on the way.
PASSING_STATUSES = frozenset({408, 425, 429})
PASSING_REASONS = frozenset({"timeout", "dns", "connection", "fetch_failed"})
# Neither the URL nor the hash: what is on such a list is told by no log.
BLOCKED_HASH = ("blocked_hash", "its bytes are on a list of download.block_hashes")
TDM_HEADER_SAYS_SO = ("tdm_reserved", f"the header {TDM_HEADER}")


class FetchError(Exception):
    """An image that was not fetched; the text is `reason: detail`, the same words for the same cause.

    `retry_after_s` is what the host asks to wait, 0 if it does not say.
    """

    def __init__(self, reason: str, detail: str, retry_after_s: float = 0.0) -> None:
        self.reason = reason
        self.retry_after_s = retry_after_s
        self.detail = detail.encode("ascii", "backslashreplace").decode()
        super().__init__(f"{self.reason}: {self.detail}")

    @property
    def is_settled(self) -> bool:
        """Whether another try of the same URL would end the same way."""
        if self.reason.startswith("http_"):
            status = int(self.reason.removeprefix("http_"))
            return status < 500 and status not in PASSING_STATUSES
        return self.reason not in PASSING_REASONS


def passing_reasons() -> list[str]:
    """All reasons after which another try may end otherwise."""
    statuses = (f"http_{status}" for status in range(100, 1_000))
    return sorted(PASSING_REASONS) + [reason for reason in statuses if not FetchError(reason, "").is_settled]


def refusal(status: int, retry_after: str | None) -> FetchError:
    """The error of an answer that is none; `retry_after` is the header of that name."""
    asked_s = 0 if retry_after is None else math.ceil(retry_after_s(retry_after))
    # sql/download_results.sql reads the seconds.
    told = f"; retry after {asked_s} s" if asked_s else ""
    return FetchError(f"http_{status}", f"the server's answer{told}", asked_s)
