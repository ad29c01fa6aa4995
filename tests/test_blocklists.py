"""Block lists against slow and obvious Python, and files that are not as they should be."""

from __future__ import annotations

import gzip
import hashlib
import logging
import random
import tempfile
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from upath import UPath

from pipeline.blocked_hashes import BLOCK_HASHES, BlockedHashes, local_hashes, plan_hashes
from pipeline.blocklists import BLOCK_LISTS, BLOCKED, LISTS, BlockConfig, BlockedConfig, plan
from pipeline.errors import InputError
from pipeline.pairs import PAIRS, PairsConfig
from pipeline.query import QueryConfig
from pipeline.sources.rows import RowsWriter
from pipeline.stage import StageResult

QUERY = QueryConfig(threads=1)
Pair = tuple[str | None, str | None]  # URL and caption


def pairs_of(folder: Path, rows: list[Pair], part: int = 0) -> UPath:
    rows_folder = folder / f"rows-{part}"
    rows_folder.mkdir()
    with RowsWriter(rows_folder, "a.csv") as writer:
        columns = {"url": [url for url, _ in rows], "caption_raw": [caption for _, caption in rows]}
        writer.append({name: pa.array(values, pa.string()) for name, values in columns.items()})
    out = UPath(folder / f"pairs-{part}")
    out.mkdir()
    PAIRS.work([UPath(rows_folder)], Path(out.path), PairsConfig(part=part))
    return out


def listed(folder: Path, name: str, text: str | bytes, file: str = "") -> tuple[str, ...]:
    path = folder / (file or f"{name}.txt")
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return (str(path),)


def lists_of(folder: Path, config: BlockConfig, name: str = "block_lists") -> StageResult:
    return BLOCK_LISTS.run((), UPath(folder / name), plan(config, QUERY))


def table_of(lists: StageResult) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(Path(lists.out.path) / "block_lists.parquet").to_pylist()
    return rows


def entries_of(lists: StageResult) -> list[str]:
    return [row["value"] for row in table_of(lists) if row["drop_reason"] is None]


def blocked(folder: Path, pairs: UPath, lists: StageResult, config: BlockConfig) -> dict[int, tuple[str, str | None]]:
    out = Path(tempfile.mkdtemp(dir=folder))
    counts = BLOCKED.work([pairs, lists.out], out, BlockedConfig.of(config, QUERY))
    table = pq.read_table(out / "blocked.parquet")
    assert table.schema.names == ["part", "row", "block_reason", "block_value"]
    assert [str(kind) for kind in table.schema.types] == ["int32", "int64", "string", "string"]
    rows = table.to_pylist()
    assert [row["row"] for row in rows] == sorted({row["row"] for row in rows})
    assert counts.dropped == Counter(row["block_reason"] for row in rows)
    assert counts.rows_in == pq.read_metadata(Path(pairs.path) / "pairs.parquet").num_rows
    return {row["row"]: (row["block_reason"], row["block_value"]) for row in rows}


def hits(folder: Path, rows: list[Pair], config: BlockConfig) -> dict[int, tuple[str, str | None]]:
    return blocked(folder, pairs_of(folder, rows), lists_of(folder, config), config)


# Slow and obvious.

BLANKLESS = ("CJK UNIFIED", "HIRAGANA LETTER", "KATAKANA LETTER", "THAI CHARACTER")


def words_of(text: str) -> list[str]:
    spaced = ""
    for char in text:
        if unicodedata.name(char, "").startswith(BLANKLESS):
            spaced += f" {char} "
        else:
            spaced += char if unicodedata.category(char)[0] in "LMN" else " "
    return spaced.split()


def holds(words: list[str], phrase: list[str]) -> bool:
    return any(words[at : at + len(phrase)] == phrase for at in range(len(words)))


def obvious(pair: dict[str, Any], lists: dict[str, list[Any]], config: BlockConfig) -> tuple[str, str | None] | None:
    found: list[tuple[int, str, str | None]] = []
    url, host = pair["url_norm"], pair["host"]
    for value in lists["tombstones"]:
        if value in (pair["pair_id"], url):
            found.append((1, "tombstone", value))
    found += [(2, "blocked_url", value) for value in lists["urls"] if value == url]
    for value in lists["hosts"]:
        is_number = host is not None and host.rpartition(".")[2].isdigit()
        if host is not None and (host == value or (host.endswith(f".{value}") and not is_number)):
            found.append((3, "blocked_host", value))
    words = words_of((pair["caption_key"] or "").replace("<email>", " "))
    found += [(4, "blocked_word", value) for value in lists["words"] if holds(words, value.split(" "))]
    if config.min_score is not None:
        scores = [score for value, score in lists["scores"] if value in (pair["pair_id"], url)]
        if scores and min(scores) < config.min_score:
            found.append((5, "low_score", str(min(scores))))
        if not scores and config.scores_required:
            found.append((6, "no_score", None))
    if not found:
        return None
    _, reason, value = min(found, key=lambda hit: (hit[0], -len((hit[2] or "").encode()), hit[2] or ""))
    return reason, value


HOSTS = ["a.example", "x.a.example", "b.c.a.example", "example", "aa.example", "10.0.0.1", "110.0.0.1", "[2001:db8::1]"]
WORDS = [
    "red",
    "cat",
    "catalogue",
    "the",
    "straße",
    "caf\u00e9",
    "don't",
    "猫",
    "可愛い猫",
    "x-rated",
    "\u0e41\u0e21\u0e27",
    "1984",
    "of",
]


@pytest.mark.parametrize("seed", range(4))
def test_all_lists_say_what_slow_python_says(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    rows: list[Pair] = []
    for _ in range(400):
        url = rng.choice([None, "data:x", *[f"http://{host}/{rng.randrange(6)}.jpg" for host in HOSTS]])
        text = " ".join(
            rng.choice([word, word.upper(), word.title()]) for word in rng.choices(WORDS, k=rng.randrange(9))
        )
        rows.append((url, rng.choice([None, text, text, f"{text}, a@b.com", f"({text})!"])))
    pairs = pairs_of(tmp_path, rows)
    described = pq.read_table(Path(pairs.path) / "pairs.parquet").to_pylist()
    ids = [row["pair_id"] for row in described]
    urls = [f"http://{host}/{number}.jpg" for host in HOSTS for number in range(6)]

    phrases = [" ".join(rng.choices(WORDS, k=rng.choice([1, 2, 3, 4, 5, 6]))) for _ in range(60)]
    words = rng.sample([phrase for phrase in phrases if " " in phrase], 25) + rng.sample(WORDS, 1)
    scored = [(key, rng.choice([0.1, 0.25, 0.3])) for key in rng.sample(ids, 60) + rng.sample(urls, 12)]
    scores = tmp_path / "scores.parquet"
    keys, values = zip(*scored, strict=True)
    columns = {
        "pair_id": [key if len(key) == 32 else None for key in keys],
        "url": [key if len(key) != 32 else None for key in keys],
        "clip": values,
    }
    pq.write_table(pa.table(columns), scores)
    config = BlockConfig(
        hosts=listed(tmp_path, "hosts", "\n".join(rng.sample(HOSTS[:3] + HOSTS[4:6], 2))),
        urls=listed(tmp_path, "urls", "\n".join(rng.sample(urls, 6))),
        words=listed(tmp_path, "words", "\n".join(words)),
        tombstones=listed(tmp_path, "tombstones", "\n".join(rng.sample(ids, 9) + rng.sample(urls, 3))),
        scores=(str(scores),),
        score_column="clip",
        min_score=0.25,
        scores_required=bool(seed % 2),
    )
    lists = lists_of(tmp_path, config)
    by_list: dict[str, list[Any]] = {name: [] for name in LISTS}
    for row in table_of(lists):
        if row["drop_reason"] is None:
            by_list[row["list"]].append((row["value"], row["score"]) if row["list"] == "scores" else row["value"])
    assert {value for value in by_list["words"]} == {" ".join(words_of(word.casefold())) for word in words}

    expected = {row["row"]: hit for row in described if (hit := obvious(row, by_list, config)) is not None}
    assert blocked(tmp_path, pairs, lists, config) == expected
    wanted = {"tombstone", "blocked_url", "blocked_host", "blocked_word", "low_score"}
    assert wanted <= {reason for reason, _ in expected.values()} < wanted | {"no_score", ""}


def test_a_host_blocks_its_subdomains_and_nothing_else(tmp_path: Path) -> None:
    config = BlockConfig(
        hosts=listed(
            tmp_path,
            "hosts",
            "Bad.Example\n*.wild.example\n.dot.example\n0.0.0.0 sink.example # of a hosts file\n"
            "b\u00fccher.example\n0.0.1\n2001:DB8::1\n",
        )
    )
    urls = [
        "bad.example",
        "a.b.bad.example",
        "notbad.example",
        "example",
        "bad.example.org",
        "x.wild.example",
        "wild.example",
    ]
    urls += [
        "dot.example",
        "sink.example:8080",
        "xn--bcher-kva.example",
        "10.0.0.1",
        "[2001:db8::1]:81",
        "BAD.EXAMPLE.",
    ]
    found = hits(tmp_path, [(f"http://{url}/x.jpg", "a cat") for url in urls], config)
    assert {urls[row]: value for row, (_, value) in found.items()} == {
        "bad.example": "bad.example",
        "a.b.bad.example": "bad.example",
        "x.wild.example": "wild.example",
        "wild.example": "wild.example",
        "dot.example": "dot.example",
        "sink.example:8080": "sink.example",
        "xn--bcher-kva.example": "xn--bcher-kva.example",
        "[2001:db8::1]:81": "[2001:db8::1]",
        "BAD.EXAMPLE.": "bad.example",
    }
    assert {reason for reason, _ in found.values()} == {"blocked_host"}


def test_urls_are_compared_in_normal_form(tmp_path: Path) -> None:
    config = BlockConfig(
        urls=listed(tmp_path, "urls", "HTTP://H.example:80/a/../b.jpg?utm_id=1#x\nhttps://h.example/c.jpg")
    )
    urls = [
        "http://h.example/b.jpg",
        "http://h.example/b.jpg?w=1",
        "http://h.example/c.jpg",
        "https://h.example/c.jpg?fbclid=1",
    ]
    assert hits(tmp_path, [(url, "a cat") for url in urls], config) == {
        0: ("blocked_url", "http://h.example/b.jpg"),
        3: ("blocked_url", "https://h.example/c.jpg"),
    }


def test_words_are_whole_words_in_any_case(tmp_path: Path) -> None:
    words = "Cat\nred  DOG\nSTRASSE\nc\u0327a\n色情\none two three four five\nemail\n"
    config = BlockConfig(words=listed(tmp_path, "words", words))
    captions = [
        *[
            "a CAT!",
            "catalogue of cats",
            "the cat's ear",
            "wild-cat",
            "red dog",
            "red, dog",
            "red hot dog",
            "die Stra\u00dfe",
        ],
        *[
            "\u00e7a va",
            "这是色情图片",
            "色彩情感",
            "zero one two three four five six",
            "one two three four, six",
            "write to a@b.com",
        ],
        *["an email", "", "bobcat", "five one two three four"],
    ]
    found = hits(tmp_path, [("http://h/a.jpg", caption) for caption in captions], config)
    assert {captions[row]: value for row, (_, value) in found.items()} == {
        "a CAT!": "cat",
        "the cat's ear": "cat",
        "wild-cat": "cat",
        "red dog": "red dog",
        "red, dog": "red dog",
        "die Stra\u00dfe": "strasse",
        "\u00e7a va": "\u00e7a",
        "这是色情图片": "色 情",
        "zero one two three four five six": "one two three four five",
        "an email": "email",
    }


def test_the_first_reason_stands(tmp_path: Path) -> None:
    url = "http://bad.example/a.jpg"
    everything = {
        "tombstones": listed(tmp_path, "tombstones", url),
        "urls": listed(tmp_path, "urls", url),
        "hosts": listed(tmp_path, "hosts", "bad.example\nexample"),
        "words": listed(tmp_path, "words", "cat"),
    }
    pairs = pairs_of(tmp_path, [(url, "a cat")])
    expected = [("tombstone", url), ("blocked_url", url), ("blocked_host", "bad.example"), ("blocked_word", "cat")]
    for number, hit in enumerate(expected):
        config = BlockConfig(**dict(list(everything.items())[number:]))
        lists = lists_of(tmp_path, config, f"lists-{number}")
        assert blocked(tmp_path, pairs, lists, config) == {0: hit}


@pytest.mark.parametrize("file", ["t.csv", "t.csv.gz", "t.parquet", "t.txt"])
def test_tombstones_come_in_three_forms(file: str, tmp_path: Path) -> None:
    pairs = pairs_of(tmp_path, [(f"http://h/{n}.jpg", "a cat") for n in range(4)])
    ids = pq.read_table(Path(pairs.path) / "pairs.parquet")["pair_id"].to_pylist()
    keys = [ids[1].upper(), "http://H/2.jpg"]
    if file == "t.parquet":
        pq.write_table(pa.table({"pair_id": [keys[0], None], "url": ["http://h/1.jpg", keys[1]]}), tmp_path / file)
    elif file == "t.txt":
        listed(tmp_path, "", "\n".join(keys), file)
    else:
        text = f'\ufeffreason,pair_id,url\r\n"of one, that\nasked",{keys[0]},x\r\n,,{keys[1]}\r\n'.encode()
        listed(tmp_path, "", gzip.compress(text) if file.endswith("gz") else text, file)
    config = BlockConfig(tombstones=(str(tmp_path / file),))
    lists = lists_of(tmp_path, config)
    assert (lists.counts.rows_in, lists.counts.rows_kept) == (2, 2)
    found = blocked(tmp_path, pairs, lists, config)
    assert found == {1: ("tombstone", ids[1]), 2: ("tombstone", "http://h/2.jpg")}


def test_scores(tmp_path: Path) -> None:
    rows: list[Pair] = [(f"http://h/{n}.jpg", "a cat") for n in range(6)]
    pairs = pairs_of(tmp_path, rows)
    ids = pq.read_table(Path(pairs.path) / "pairs.parquet")["pair_id"].to_pylist()
    nan = float("nan")
    pq.write_table(pa.table({"pair_id": [*ids[:4], ids[1]], "s": [0.3, 0.3, 0.29, nan, 0.1]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"url": ["http://h/0.jpg", "HTTP://h/4.jpg"], "s": [1, 0]}), tmp_path / "b.parquet")
    block = {"scores": (str(tmp_path / "*.parquet"),), "score_column": "s", "min_score": 0.3}
    config = BlockConfig(**block)
    lists = lists_of(tmp_path, config)
    assert lists.counts.dropped == {"duplicate": 1, "invalid": 1}
    expected = {1: ("low_score", "0.1"), 2: ("low_score", "0.29"), 4: ("low_score", "0.0")}
    assert blocked(tmp_path, pairs, lists, config) == expected
    strict = BlockConfig(**block, scores_required=True)
    no_scores = {3: ("no_score", None), 5: ("no_score", None)}
    assert blocked(tmp_path, pairs, lists, strict) == {**expected, **no_scores}


def test_every_line_is_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = b"\xef\xbb\xbfa.example\r\n# a comment\r\n\r\nA.example # the same\r\nno host at all\r\nb.example:80\r\n"
    text += b"caf\xe9.example\r\n" + b"x" * 1_000_000 + b"\r\nhttp://c.example/\r\nd.example"
    config = BlockConfig(hosts=listed(tmp_path, "hosts", text))
    with caplog.at_level(logging.WARNING):
        lists = lists_of(tmp_path, config)
    assert entries_of(lists) == ["a.example", "d.example"]
    assert lists.counts.dropped == {
        "comment": 1,
        "duplicate": 1,
        "empty": 1,
        "invalid": 3,
        "not_utf8": 1,
        "too_long": 1,
    }
    assert lists.counts.rows_in == 10
    assert "hosts.txt: 3 entries of block.hosts; cannot be used: 3 invalid (first: line 5), 1 not_utf8" in caplog.text
    reasons = {row["line"]: row["drop_reason"] for row in table_of(lists)}
    assert [reasons[line] for line in range(1, 11)] == [
        *[None, "comment", "empty", "duplicate", "invalid", "invalid", "not_utf8", "too_long", "invalid", None],
    ]


def test_words_without_a_letter_are_invalid_and_spellings_of_one_are_duplicates(tmp_path: Path) -> None:
    lists = lists_of(tmp_path, BlockConfig(words=listed(tmp_path, "words", "cat\n!!!\nCAT\n -cat- \nca\u0074\u0301\n")))
    assert lists.counts.dropped == {"duplicate": 2, "invalid": 1}
    assert sorted(entries_of(lists)) == ["cat", "cat\u0301"]


@pytest.mark.parametrize("text", [b"", b"\n\r\n  \n", b"# nothing yet\n", b"\xef\xbb\xbf"])
def test_an_empty_list_blocks_nothing(text: bytes, tmp_path: Path) -> None:
    names = [name for name in LISTS if name != "scores"]
    config = BlockConfig(**{name: listed(tmp_path, name, text) for name in names})
    assert lists_of(tmp_path, config).counts.rows_kept == 0
    assert hits(tmp_path, [("http://h/a", "a cat"), (None, None)], config) == {}


def test_a_part_without_rows(tmp_path: Path) -> None:
    config = BlockConfig(words=listed(tmp_path, "words", "cat"), hosts=listed(tmp_path, "hosts", "h"))
    pairs = UPath(tmp_path / "pairs")
    pairs.mkdir()
    whole = pq.read_table(Path(pairs_of(tmp_path, [("http://h/a", "a cat")]).path) / "pairs.parquet")
    pq.write_table(whole.slice(0, 0), Path(pairs.path) / "pairs.parquet")
    assert blocked(tmp_path, pairs, lists_of(tmp_path, config), config) == {}


def message_of(config: BlockConfig, folder: Path) -> str:
    with pytest.raises(InputError) as error:
        lists_of(folder, config)
    assert not (folder / "block_lists").exists()
    return str(error.value)


@pytest.mark.parametrize("name", LISTS)
def test_a_missing_file_is_named_with_its_option(name: str, tmp_path: Path) -> None:
    scores = {"min_score": 0.0} if name == "scores" else {}
    path = str(tmp_path / ("no.parquet" if name == "scores" else "no.txt"))
    told = message_of(BlockConfig(**{name: (path,)}, **scores), tmp_path)
    assert told == f"{path}: no such file; check block.{name}"
    told = message_of(BlockConfig(**{name: (str(tmp_path / "*.none"),)}, **scores), tmp_path)
    assert f"matches no file; check block.{name}" in told


def test_files_of_the_wrong_kind(tmp_path: Path) -> None:
    table = pa.table({"pair_id": ["0" * 32], "score": ["good"], "number": [1]})
    pq.write_table(table, tmp_path / "s.parquet")
    parquet = (str(tmp_path / "s.parquet"),)
    assert "block.hosts takes text, this is Parquet" in message_of(BlockConfig(hosts=parquet), tmp_path)
    text = listed(tmp_path, "x", "a")
    assert "block.scores takes Parquet, this is text" in message_of(BlockConfig(scores=text, min_score=0), tmp_path)
    told = message_of(BlockConfig(scores=parquet, min_score=0), tmp_path)
    assert "column 'score' holds string, not numbers; set block.score_column" in told
    told = message_of(BlockConfig(scores=parquet, score_column="clip", min_score=0), tmp_path)
    assert "has no column 'clip', it has 'pair_id', 'score', 'number'" in told
    for file, body in {
        "bad.parquet": b"PAR1 not at all",
        "bad.txt.gz": gzip.compress(b"a.example\n" * 10_000)[:60],
        "no.txt.gz": b"a.example\n",
        "open.csv": b'pair_id\n"' + b"0" * 32 + b"\n",
        "long.csv": b"pair_id\n" + b"0" * 1_500_000 + b"\n",
        "columns.csv": b"id\n1\n",
        "empty.csv": b"",
        "utf16.txt": "http://a/b\n".encode("utf-16"),
        "binary.txt": bytes(range(256)) * 9,
    }.items():
        told = message_of(BlockConfig(tombstones=listed(tmp_path, "", body, file)), tmp_path)
        assert told.startswith(f"{tmp_path}/{file}: ") and "block.tombstones" in told and len(told) < 1_000


def test_scores_and_their_bound_belong_together() -> None:
    with pytest.raises(ValueError, match="set min_score"):
        BlockConfig(scores=("s.parquet",))
    with pytest.raises(ValueError, match="set scores"):
        BlockConfig(scores_required=True)
    assert BlockConfig().is_empty and not BlockConfig(hosts=("h.txt",)).is_empty


def test_the_same_lists_are_read_once_and_another_byte_again(tmp_path: Path) -> None:
    config = BlockConfig(
        hosts=listed(tmp_path, "hosts", "a.example\nb.example\n"), words=listed(tmp_path, "words", "cat")
    )
    first = lists_of(tmp_path, config)
    assert lists_of(tmp_path, config).was_done
    assert lists_of(tmp_path, config, "again").record.outputs == first.record.outputs
    listed(tmp_path, "words", "dog")
    assert not lists_of(tmp_path, config).was_done


def test_a_hostile_caption_and_a_hostile_list_take_no_long_time(tmp_path: Path) -> None:
    captions = ["a " * 200_000, "猫" * 100_000, "a" * 1_000_000, "." * 1_000_000]
    phrases = ["a a a a b", "a a a a a c", *[f"a {n}" for n in range(3_000)], *[f"a a a a {n}" for n in range(300)]]
    config = BlockConfig(words=listed(tmp_path, "words", "\n".join([*phrases, "猫 犬"])))
    assert hits(tmp_path, [("http://h/a.jpg", caption) for caption in captions], config) == {}
    config = BlockConfig(words=listed(tmp_path, "words", "a a a a a\n猫猫猫"))
    lists = lists_of(tmp_path, config, "more")
    assert set(blocked(tmp_path, UPath(tmp_path / "pairs-0"), lists, config)) == {0, 1}


def test_hashes_of_images_against_a_set(tmp_path: Path) -> None:
    """Lists with both algorithms, either case, comments and rubbish, against a Python set of the same hashes."""
    rng = random.Random(3)
    bodies = [rng.randbytes(rng.randrange(8, 40)) for _ in range(300)]
    md5 = [hashlib.md5(body).hexdigest() for body in bodies[:80]]
    sha256 = [hashlib.sha256(body).hexdigest() for body in bodies[60:140]]
    text = "\n".join(
        [*md5, "# of a partner", *(digest.upper() + " # seen twice" for digest in sha256), md5[0], "z" * 32]
    )
    wanted = plan_hashes(listed(tmp_path, "hashes", text), QUERY)
    stored = BLOCK_HASHES.run((), UPath(tmp_path / "out"), wanted)
    assert (stored.counts.rows_kept, stored.counts.dropped) == (160, {"comment": 1, "duplicate": 1, "invalid": 1})
    hashes = BlockedHashes(local_hashes(stored.out, tmp_path))
    assert [hashes.holds(body) for body in bodies] == [number < 140 for number in range(300)]
    assert sorted(stored.record.outputs) == ["md5.bin", "sha256.bin"]

    remote = UPath("memory://hashes")
    for file in Path(stored.out.path).iterdir():
        (remote / file.name).write_bytes(file.read_bytes())
    assert BlockedHashes(local_hashes(remote, tmp_path)).holds(bodies[0])
    nothing = BLOCK_HASHES.run((), UPath(tmp_path / "none"), plan_hashes(listed(tmp_path, "none", "# none yet"), QUERY))
    assert not BlockedHashes(local_hashes(nothing.out, tmp_path)).holds(bodies[0])


def test_a_file_that_holds_no_hash_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no line can be used as an entry of download\.block_hashes"):
        wanted = plan_hashes(listed(tmp_path, "hashes", "http://a.example/\n"), QUERY)
        BLOCK_HASHES.run((), UPath(tmp_path / "out"), wanted)
    with pytest.raises(InputError, match=r"download\.block_hashes takes text, this is CSV"):
        plan_hashes(listed(tmp_path, "hashes", "", "a.csv"), QUERY)
