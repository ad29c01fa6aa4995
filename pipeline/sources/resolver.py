"""Name resolution for a crawler that may only reach the public Internet."""

from __future__ import annotations

from typing import Any

from scrapy.resolver import CachingThreadedResolver
from twisted.internet.defer import Deferred
from twisted.internet.error import DNSLookupError

from pipeline.addresses import is_public


class PublicResolver(CachingThreadedResolver):  # type: ignore[misc]  # Scrapy is read untyped
    """Scrapy's resolver, refusing names that lead to an address of one's own network.

    The address that is checked is the one that is connected to, so a name that changes its mind, or a redirect, gains
    nothing. Names that were refused are kept in `refused`, for Twisted shows any failure here as a name that does not
    exist.
    """

    refused: set[str] = set()  # noqa: RUF012 -- one crawl, one process; Scrapy makes the instance

    def getHostByName(self, name: str, timeout: Any = ()) -> Deferred[str]:  # noqa: N802 -- Twisted's name
        """The IPv4 address of `name`; fails with DNSLookupError if it is not public."""
        found: Deferred[str] = super().getHostByName(name, timeout)
        return found.addCallback(self._check, name)

    def _check(self, address: str, name: str) -> str:
        if is_public(address):
            return address
        self.refused.add(name)
        raise DNSLookupError(f"{name} leads to {address}, which is not an address of the public Internet")
