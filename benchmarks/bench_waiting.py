"""A linear probe whose threads sleep while they wait, as this package has them, and one whose threads spin, libgomp's way.

    python -m benchmarks.bench_waiting --busy 4

The search of a probe's penalty (benchmarks/bench_probe.py makes its images), two threads, on a machine where `--busy` other
processes want the processors too. Each measurement is a process of its own, for OpenMP reads its settings once; rounds alternate.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

SETTINGS = {
    "threads that spin": {"OMP_WAIT_POLICY": "active"},
    "threads that sleep": {},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
CHILD = """
import model  # before torch is loaded: it says how threads wait
import sys, time
from benchmarks.bench_probe import make_images
from model.evaluation.probe import search_penalty
images, dimensions, classes = map(int, sys.argv[1].split(","))
train, val, _ = make_images(images, dimensions, classes)
processor, wall = time.process_time(), time.perf_counter()
search_penalty(train, val, classes, "accuracy")
print(time.process_time() - processor, time.perf_counter() - wall)
"""


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """So many processes that do nothing but count, for the length of the block."""
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def seconds(setting: dict[str, str], shape: str) -> tuple[float, float]:
    """Of the processor and of the wall."""
    plain = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment = {**plain, "OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "1", **setting}
    command = [sys.executable, "-c", CHILD, shape]
    told = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    processor_s, wall_s = map(float, told.split())
    return processor_s, wall_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="1024,64,64", help="training images, dimensions, classes")
    parser.add_argument("--busy", type=int, default=4, help="other processes; 0 = a quiet machine")
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    with busy(chosen.busy):
        time.sleep(1)
        rounds = [
            {name: seconds(setting, chosen.shape) for name, setting in SETTINGS.items()} for _ in range(chosen.rounds)
        ]
    print(
        f"{chosen.shape}, {len(os.sched_getaffinity(0))} processors, {chosen.busy} other processes, {chosen.rounds} rounds\n"
    )
    print("| | seconds of the processor, median | of the wall |\n|---|---|---|")
    for name in SETTINGS:
        processor_s, wall_s = (statistics.median(found[name][clock] for found in rounds) for clock in (0, 1))
        print(f"| {name} | {processor_s:.1f} | {wall_s:.1f} |")


if __name__ == "__main__":
    main()
