"""Later passes over failed rows: who is asked again, when, and what the funnel says in the end."""

from __future__ import annotations

import time
from email.utils import formatdate

import pytest

from pipeline.bounded_opener import passing_reasons, refusal
from pipeline.config import DownloadConfig
from pipeline.retry import RetryConfig, final_counts, wait_s
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
