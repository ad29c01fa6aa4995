"""Which IP addresses a fetcher may connect to: the public Internet, nothing of one's own network."""

from __future__ import annotations

import ipaddress

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052: the last 32 bits are an IPv4 address
# Local by their RFC, but not in every Python's table: site-local (RFC 3879) and NAT64 of one's own network (RFC 8215).
LOCAL_NETWORKS = (ipaddress.IPv6Network("fec0::/10"), ipaddress.IPv6Network("64:ff9b:1::/48"))


def is_public(address: str) -> bool:
    """Whether `address`, a literal IPv4 or IPv6 address, is one of the public Internet.

    Loopback, private, carrier-grade NAT, link-local, multicast, reserved, documentation and unspecified addresses are
    not; neither is an IPv6 address that carries such an IPv4 address (mapped, 6to4, Teredo, NAT64), nor text that is no
    address (a host name, `127.1`).
    """
    try:
        parsed = ipaddress.ip_address(address.strip("[]").partition("%")[0])
    except ValueError:
        return False
    return all(_is_global_unicast(each) for each in (_embedded(parsed) or [parsed]))


def _is_global_unicast(address: IPAddress) -> bool:
    if address.is_multicast or address.is_reserved or address.is_link_local:
        return False
    return address.is_global and not any(address in network for network in LOCAL_NETWORKS)


def _embedded(address: IPAddress) -> list[IPAddress]:
    """The IPv4 addresses that an IPv6 address leads to, if it is of a kind that leads to some."""
    if isinstance(address, ipaddress.IPv4Address):
        return []
    if address in NAT64:
        return [ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)]
    if address.teredo:
        return list(address.teredo)
    carried = address.ipv4_mapped or address.sixtofour
    return [carried] if carried else []
