"""The watch over the quotes of a CSV file against one that looks at every character."""

from __future__ import annotations

import io
import itertools

import pytest

from pipeline.errors import InputError
from pipeline.sources.csv_quotes import QuoteWatch


def swallows_rows(text: str) -> bool:
    """Whether a quoted field has no end in `text`, or one with more text behind it in a later line. One step a character."""
    state, spans_lines = "start", False
    for char in text:
        if state == "start" and char == '"':
            state, spans_lines = "quoted", False
        elif state == "quoted" and char == '"':
            state = "quote in quoted"
        elif state == "quote in quoted" and char == '"':
            state = "quoted"
        elif state == "quoted":
            spans_lines |= char in "\r\n"
        elif char in ",\r\n":
            state = "start"
        elif state == "quote in quoted" and spans_lines:
            return True
        else:
            state = "plain"
    return state == "quoted"


def read_through(text: str, size: int, max_field_bytes: int = 1_000) -> str:
    watch = QuoteWatch(io.BytesIO(text.encode()), "a.csv", max_field_bytes)
    return b"".join(iter(lambda: watch.read(size), b"")).decode()


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_every_short_text_is_judged_as_character_by_character(size: int) -> None:
    swallowing = 0
    for text in map("".join, itertools.chain.from_iterable(itertools.product('a",\n', repeat=n) for n in range(7))):
        try:
            assert read_through(text, size) == text
            is_refused = False
        except InputError:
            is_refused = True
        assert is_refused == swallows_rows(text), repr(text)
        swallowing += is_refused
    assert 500 < swallowing < 4_000


@pytest.mark.parametrize(
    "text",
    [
        'u,"two\nlines"\nv,w\n',
        'u,"two\r\nlines, and ""quotes"""\r\n',
        'u,5" screen\nv,"w"\n',
        'u,"Yes" she said\nv,w\n',
        '"",""\n"",""',
    ],
)
def test_quotes_that_cost_no_row_are_let_pass(text: str) -> None:
    assert read_through(text, 5) == text


@pytest.mark.parametrize("size", [1, 4, 1_000])
def test_the_line_of_the_quote_is_named(size: int) -> None:
    rows = 'url,caption\nu1,"closed\nover lines"\nu2,"one red car\nu3,two red cars\n'
    for rest in ("", 'u4,"x"\n', 'u4,a "x" b\n'):
        with pytest.raises(InputError, match=r"a\.csv: line 4: the quote before 'one red car' .*twice \(RFC 4180\)"):
            read_through(rows + rest, size)


def test_a_field_without_end_is_not_gathered_for_ever() -> None:
    with pytest.raises(InputError, match="line 1: the quote before 'xxx"):
        read_through('"' + "x" * 200 + '"\n', 10, max_field_bytes=100)
    assert read_through('"' + "x" * 90 + '"\n', 10, max_field_bytes=100)
