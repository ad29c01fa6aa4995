"""`make bench`: every benchmark that compares with a peer, one after the other; each prints its own table."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

PEERS = {
    "bench_matching": "ahocorasick",
    "bench_extract": "warcio",
    "bench_dedup": "duckdb",
    "bench_download": "img2dataset",
    "bench_loss": "open_clip",
    "bench_loader": "open_clip",
    "bench_step": "open_clip",
    "bench_probe": "sklearn",
    "bench_zero_shot": "open_clip",
    "bench_embed": "simplejpeg",
}


def main() -> int:
    """Run them; returns 1 if one failed or missed its peer."""
    failed = 0
    for benchmark, peer in PEERS.items():
        if importlib.util.find_spec(peer) is None:
            print(f"{benchmark}: skipped, {peer} is not installed; pip install -e '.[bench]' brings the peers")
            failed = 1
            continue
        failed |= subprocess.run([sys.executable, "-m", f"benchmarks.{benchmark}"], check=False).returncode != 0
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
