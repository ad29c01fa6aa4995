"""Fetches one part's images with img2dataset, in a process of its own: `python -m pipeline.fetch_part SPEC.json`.

img2dataset spawns its workers, and each of them imports the main module again under the name `__mp_main__`. So what
this module does at its end for both names is done in every process that fetches: it dies with its parent, and it opens
URLs with our opener.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import sys
import threading
import time
import urllib.request
from pathlib import Path
from types import ModuleType
from typing import cast

from pipeline.blocked_hashes import BlockedHashes
from pipeline.bounded_opener import BoundedOpener
from pipeline.fetch_spec import FetchSpec
from pipeline.originals import OriginalsLog, original_of
from pipeline.parent_death import die_with_parent
from pipeline.sources.robots import OPT_OUT_TOKENS
from pipeline.upright import decode_upright

OPT_OUTS = (*OPT_OUT_TOKENS, "none")  # none stands for noindex and nofollow
OPENER_USED_FILE = "opener-used"
WORKER_DIED = 70  # exit status
HEALTHY_EXITS = (None, 0, -signal.SIGTERM)  # running, done, and how a pool ends its workers
WATCH_EVERY_S = 0.02  # a pool forgets a dead worker within 0.1 s; no interpreter starts and ends faster than this


def fetch(spec: FetchSpec) -> None:
    """Fetch, shrink and pack all images: `out` gets one `NNNNN.tar`, `.parquet` and `_stats.json` per process."""
    from img2dataset import download

    config = spec.config
    threading.Thread(target=_watch_workers, daemon=True).start()
    download(
        url_list=str(spec.requests),
        input_format="parquet",
        url_col="url",
        save_additional_columns=["pair_id"],
        output_folder=str(spec.out),
        output_format="webdataset",
        number_sample_per_shard=math.ceil(spec.rows / config.processes),
        processes_count=config.processes,
        thread_count=math.ceil(config.threads / config.processes),
        timeout=config.timeout_s,
        retries=config.retries,
        resize_mode="keep_ratio",  # image_size is the short side
        resize_only_if_bigger=True,
        image_size=config.short_side_px,
        encode_format="jpg",
        encode_quality=config.jpeg_quality,
        compute_hash="sha256",
        extract_exif=False,
        user_agent_token=config.user_agent_token,
        disallowed_header_directives=list(OPT_OUTS),
        incremental_mode="incremental",  # the folder is fresh; "overwrite" of 1.47 deletes its own temporary folder
        enable_wandb=False,
    )


def _watch_workers() -> None:
    """End this process when a worker crashed or was killed: the pool would wait for its answer for ever."""
    workers = set()
    while True:
        workers.update(multiprocessing.active_children())
        for worker in workers:
            if worker.exitcode not in HEALTHY_EXITS:
                print(f"{worker.name} died with exit status {worker.exitcode}", file=sys.stderr, flush=True)
                os._exit(WORKER_DIED)
        time.sleep(WATCH_EVERY_S)


def _prepare_process(spec: FetchSpec, parent_pid: int) -> None:
    die_with_parent(parent_pid, signal.SIGKILL)
    _leave_out_imports()
    decode_upright()
    mark = spec.out.with_name(OPENER_USED_FILE)
    originals = OriginalsLog(spec.out.parent, os.getpid())
    blocked = BlockedHashes(spec.block_hashes) if spec.block_hashes else None
    opener = BoundedOpener(
        spec.config,
        on_first_use=mark.touch,
        is_blocked=blocked.holds if blocked else lambda body: False,
        on_body=lambda body: originals.add(original_of(body)),
    )
    urllib.request.install_opener(opener)


def _leave_out_imports() -> None:
    """Spare each process seconds of start-up for what is not used here."""
    modules = cast(dict[str, object], sys.modules)
    # Optional for webdataset and albumentations; None makes `import` an ImportError, which they expect.
    modules["torch"] = modules["huggingface_hub"] = None
    # Imported by img2dataset whether enable_wandb is set or not, used only if it is.
    modules["wandb"] = ModuleType("wandb")


if __name__ in ("__main__", "__mp_main__"):
    _spec = FetchSpec.model_validate_json(Path(sys.argv[1]).read_text(encoding="utf-8"))
    # The first process leads its session; the workers are its children.
    _prepare_process(_spec, _spec.parent_pid if __name__ == "__main__" else os.getsid(0))
if __name__ == "__main__":
    fetch(_spec)
