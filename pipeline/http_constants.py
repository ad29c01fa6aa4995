"""What both backends of the download know of HTTP."""

from __future__ import annotations

DEFAULT_PORTS = {"http": 80, "https": 443}
REDIRECTS = frozenset({301, 302, 303, 307, 308})
CACHED_HOSTS = 65_536  # whose addresses are kept
CHUNK_BYTES = 1 << 18  # of a body, read at once
