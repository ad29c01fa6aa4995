"""Later passes over failed rows: who is asked again, when, and what the funnel says in the end."""

from __future__ import annotations

import http.server
import io
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from pathlib import Path

import pyarrow as pa
import pytest
from conftest import free_port
from downloaded_parts import RESULTS_SCHEMA, finished
from PIL import Image
from upath import UPath

from pipeline.config import DownloadConfig
from pipeline.fetch_error import passing_reasons, refusal
from pipeline.outages import DownloadError, refuse_silence
from pipeline.retry import RetryConfig, final_counts, retry_stage, wait_s
from pipeline.stage import Counts


def test_reasons_that_may_pass() -> None:
    reasons = set(passing_reasons())
    assert reasons >= {"dns", "timeout", "connection", "http_408", "http_429", "http_500", "http_503", "http_599"}
    settled = {"http_404", "http_410", "http_403", "opted_out_image", "too_large", "too_many_pixels", "not_an_image"}
    assert not reasons & (settled | {"blocked_hash", "private_address", "too_many_redirects", "robots", "ok"})


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("120", 120), (" 7 ", 7), ("soon", 0), ("-3", 0), ("", 0), ("Wed, 21 Oct 2015 07:28:00 GMT", 0)],
)
def test_what_a_host_asks_for_is_told(header: str, seconds: int) -> None:
    assert refusal(429, header).detail == "the server's answer" + (f"; retry after {seconds} s" if seconds else "")


def test_a_date_is_told_in_seconds() -> None:
    told = refusal(503, formatdate(time.time() + 90, usegmt=True)).detail
    assert told in {f"the server's answer; retry after {seconds} s" for seconds in (89, 90, 91)}
    assert refusal(503, None).detail == "the server's answer"


def test_the_pause_grows_and_is_bounded() -> None:
    download = DownloadConfig(retry_wait_s=10, max_retry_wait_s=60)
    waits = [
        wait_s(RetryConfig(download=download, number=number), asked)
        for number, asked in [(1, 0), (2, 0), (3, 0), (4, 0), (1, 25), (2, 3_600)]
    ]
    assert waits == [10, 20, 40, 60, 25, 60]


def test_the_funnel_counts_each_row_once() -> None:
    first = [
        Counts(rows_in=10, rows_kept=5, dropped={"timeout": 3, "http_404": 1, "http_503": 1}),
        Counts(rows_in=2, rows_kept=1, dropped={"dns": 1}),
    ]
    second = [
        Counts(rows_in=4, rows_kept=2, dropped={"timeout": 1, "http_404": 1}),
        Counts(rows_in=1, rows_kept=0, dropped={"dns": 1}),
    ]
    third = [Counts(rows_in=1, rows_kept=1), Counts(rows_in=1, rows_kept=0, dropped={"dns": 1})]
    assert final_counts([first, second, third]) == Counts(rows_in=12, rows_kept=9, dropped={"dns": 1, "http_404": 2})
    assert final_counts([first]) == Counts(
        rows_in=12, rows_kept=6, dropped={"dns": 1, "http_404": 1, "http_503": 1, "timeout": 3}
    )


class Pictures(http.server.BaseHTTPRequestHandler):
    """Every path is the same picture, but for what is asked of each host."""

    def do_GET(self) -> None:
        buffer = io.BytesIO()
        Image.effect_noise((40, 30), 50).save(buffer, "JPEG")
        body = b"" if self.path.startswith(("/robots", "/.well-known")) else buffer.getvalue()
        self.send_response(200 if body else 404)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(port: int) -> Iterator[None]:
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", port), Pictures)
    threading.Thread(target=httpd.serve_forever, args=(0.05,), daemon=True).start()
    yield
    httpd.shutdown()
    httpd.server_close()


def test_a_pass_without_a_network_is_not_finished_and_the_next_try_gets_the_images(tmp_path: Path) -> None:
    port = free_port()
    ids = [f"{number:032x}" for number in range(3)]
    urls = [f"http://127.0.0.1:{port}/{pair_id}.jpg" for pair_id in ids]
    selected = finished(tmp_path / "selected", {"selected.parquet": pa.table({"pair_id": ids, "url": urls})})
    first = [{"pair_id": pair_id, "status": "http_503"} for pair_id in ids]
    schema = RESULTS_SCHEMA.append(pa.field("retry_after_s", pa.int64()))
    earlier = finished(tmp_path / "earlier", {"results.parquet": pa.Table.from_pylist(first, schema=schema)})
    download = DownloadConfig(
        backend="native",
        retries=0,
        retry_wait_s=0,
        allow_private_addresses=True,
        user_agent="tests/1 (+mailto:t@example.org)",
    )
    retry, settings = retry_stage(tmp_path / "cache"), RetryConfig(download=download, number=1)
    with pytest.raises(
        DownloadError, match=r"an outage: 3 of 3 images .* no answer \(connection 3\).* none can be reached"
    ):
        retry.run([selected, earlier], UPath(tmp_path / "out"), settings)
    assert not (tmp_path / "out").exists()
    with serving(port):
        result = retry.run([selected, earlier], UPath(tmp_path / "out"), settings)
    assert (result.counts.rows_kept, result.counts.dropped) == (3, {})


def test_silence_of_dead_hosts_is_no_outage_while_another_can_be_reached() -> None:
    counts = Counts(rows_in=30, rows_kept=1, dropped={"connection": 9, "dns": 20})
    dead = [f"http://127.0.0.1:{free_port()}/a.jpg", "http://no-such-host.invalid/a.jpg"]
    private = DownloadConfig(allow_private_addresses=True)
    with pytest.raises(DownloadError, match=r"29 of 30 images .* \(dns 20, connection 9\).*resolver"):
        refuse_silence("selected/part-00000", counts, dead, private)
    refuse_silence("selected/part-00000", counts, [], private)
    refuse_silence("selected/part-00000", counts, dead, private.model_copy(update={"max_failed_share": 1.0}))
    refused = Counts(rows_in=9, rows_kept=0, dropped={"http_503": 9})
    refuse_silence("selected/part-00000", refused, dead, private)
    with socket.create_server(("127.0.0.1", 0)) as alive:
        answered = [*dead, f"http://127.0.0.1:{alive.getsockname()[1]}/a.jpg"]
        refuse_silence("selected/part-00000", counts, answered, private)
        with pytest.raises(DownloadError, match="none can be reached"):
            refuse_silence("selected/part-00000", counts, answered, DownloadConfig())
