"""Verdicts on single pairs: every rule of every preset, just inside and just outside of it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from string import ascii_lowercase
from typing import Any, get_args

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_pairs import made_part, pair
from pydantic import ValidationError
from upath import UPath

from pipeline.config import BuildDatasetConfig, CurateConfig, ImageConfig, PresetName
from pipeline.errors import InputError
from pipeline.images import ImageVerdictsConfig
from pipeline.pairs import PairsConfig, make_pairs
from pipeline.query import QueryConfig, read_sql
from pipeline.rules import BLOCKED_SCHEMA, PRESETS, RULES, RulesConfig
from pipeline.settings import Settings
from pipeline.sources.rows import ROWS_SCHEMA
from pipeline.stage import Counts, Stage, StageResult

QUERY = QueryConfig(threads=1)
Case = tuple[dict[str, Any], str | None, str | None]


def ruled(tmp_path: Path, rows: Sequence[dict[str, Any]], *blocked: UPath, **curate: Any) -> StageResult:
    part = made_part(tmp_path / "pairs", rows)
    return RULES.run([part, *blocked], UPath(tmp_path / "rules"), RulesConfig.of(CurateConfig(**curate), QUERY))


def rows_of(result: StageResult) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(result.out / "ruled.parquet").to_pylist()
    return rows


def verdicts(result: StageResult) -> list[tuple[str | None, str | None]]:
    return [(row["rule_reason"], row["rule_value"]) for row in rows_of(result)]


def words(count: int) -> dict[str, Any]:
    """A caption of so many different words, of seven letters each."""
    codes = ("".join(code) for code in product(ascii_lowercase, repeat=3))
    return pair(caption=" ".join(f"word{code}" for code, _ in zip(codes, range(count), strict=False)))


def cased(different: int, repeated: int) -> dict[str, Any]:
    """A caption of so many different words, of which the first comes again, in another case."""
    return pair(caption=words(different)["caption"] + " WORDAAA" * repeated)


EVERY_PRESET: list[Case] = [
    ({}, None, None),
    ({"url": "data:image/png;base64,AA", "url_norm": None}, "invalid_url", "data:image/png;base64,AA"),
    ({"caption": None, "lang": None, "lang_score": None}, "no_caption", None),
    ({"caption": ""}, "no_caption", None),
    ({"page_opt_out": "noai"}, "opted_out", "noai"),
]
LANGUAGE_IS_ENGLISH: list[Case] = [
    ({"lang": "en", "lang_score": 0.01}, None, None),
    ({"lang": "de", "lang_score": 0.99}, "language", "de 0.99"),
    ({"lang": None, "lang_score": None}, "language", "unknown"),
]
SETTINGS_TEXT = "Nikon D90, f/2.8, 1/250 sec, ISO 400"
# The first ten characters come again, 2 of 20 runs; one character less, and it is 2 of 19.
SAME_CHARS_IN, SAME_CHARS_OUT = "abcdefghij kl mnop abcdefghij", "abcdefghij kl mno abcdefghij"


def same_words(count: int) -> str:
    """A caption of so many words, the last five of which are the first five in another case; and a full stop."""
    different = words(count - 5)["caption"].split()
    again = [word.upper() for word in different[:5]]
    different[8] += "."
    return " ".join(different + again)


CASES: dict[PresetName, list[Case]] = {
    "webimagetext": [
        ({"chars": 4}, "short_caption", "4"),
        ({"chars": 5}, None, None),
        ({"chars": 1000}, None, None),
        ({"chars": 1001}, "long_caption", "1001"),
        ({"caption": "DSC 0001.jpg", "is_file_name": True}, "file_name_caption", "DSC 0001.jpg"),
        ({"words": 1}, "few_words", "1"),
        ({"words": 2}, None, None),
        ({"words": 1, "lang": "ja"}, "language", "ja 0.9"),
        ({"lang": "de"}, "language", "de 0.9"),
        ({"lang": None, "lang_score": None}, "language", "unknown"),
        ({"lang_score": 0.29}, "language", "en 0.29"),
        ({"lang_score": 0.31}, None, None),
        ({"chars": 4, "words": 1, "lang": "de"}, "short_caption", "4"),
    ],
    "cc12m": [
        (words(2), "few_words", "2"),
        (words(3), None, None),
        (words(256), None, None),
        (words(257), "many_words", "257"),
        (cased(8, 2), None, None),  # 2 of 10
        (cased(8, 3), "word_repetition", "0.2727"),
        (cased(79, 20), "word_repetition", "0.202"),
        ({"lang": "de"}, None, None),
    ],
    "align": [
        (words(2), "few_words", "2"),
        (words(3), None, None),
        (words(20), None, None),
        (words(21), "many_words", "21"),
        ({"lang": "de"}, None, None),
    ],
    "laion400m": [
        (pair(caption="four"), "short_caption", "4"),
        (pair(caption="fives"), None, None),
        (words(2_000), None, None),
        ({"lang": "de"}, None, None),
    ],
    "datacomp_basic": [
        (pair(caption="a b c"), "short_caption", "5"),
        (pair(caption="a b cd"), None, None),
        (words(2), "few_words", "2"),
        (words(3), None, None),
        *LANGUAGE_IS_ENGLISH,
    ],
    "datacomp_caption": [
        (pair(caption="ab cd"), "short_caption", "5"),
        (pair(caption="abc cd"), None, None),
        (pair(caption="longword"), "few_words", "1"),
        (pair(caption="two words"), None, None),
        *LANGUAGE_IS_ENGLISH,
    ],
    "obelics_like": [
        (words(3), "few_words", "3"),
        (words(4), None, None),
        (pair(caption=words(1_000)["caption"] + "." * 9), None, None),
        (pair(caption=words(1_001)["caption"] + "." * 9), "many_words", "1001"),
        (pair(caption="abcd efgh ijk lmn!!!"), None, None),  # 6 of 20 are no letters
        (pair(caption="abcd efgh ijk lm!!!!"), "special_characters", "0.35"),
        (pair(caption="ἀbçd éfgh ïjk ĺmn 12"), None, None),  # letters are those of every script
        (pair(caption=SAME_CHARS_IN), None, None),
        (pair(caption=SAME_CHARS_OUT), "character_repetition", "0.1053"),
        (pair(caption=same_words(24)), None, None),  # 2 of 20 runs
        (pair(caption=same_words(23)), "word_repetition", "0.1053"),
        (words(11), None, None),
        (words(12), "no_punctuation", "0.0"),
        (pair(caption=words(125)["caption"] + "."), None, None),  # 1 of 1000 characters
        (pair(caption=words(125)["caption"] + "s."), "no_punctuation", "0.001"),  # 1 of 1001
        ({"lang_score": 0.8}, None, None),
        ({"lang_score": 0.79}, "language", "en 0.79"),
        ({"lang": "de"}, "language", "de 0.9"),
        ({"lang": None, "lang_score": None}, "language", "unknown"),
    ],
    "yfcc15m": [
        ({"caption": "20160716_113957.JPG", "is_file_name": True}, "file_name_caption", "20160716_113957.JPG"),
        (pair(caption=SETTINGS_TEXT), "exposure_settings", SETTINGS_TEXT),
        (pair(caption="50mm 1/60s"), "exposure_settings", "50mm 1/60s"),
        (pair(caption="Taken with a 50 mm lens at noon"), None, None),
        *LANGUAGE_IS_ENGLISH,
    ],
}


@pytest.mark.parametrize("preset", get_args(PresetName))
def test_each_rule_at_its_boundary(tmp_path: Path, preset: PresetName) -> None:
    cases = EVERY_PRESET + CASES[preset]
    rows = [pair(**{**values, "caption": values.get("caption", pair()["caption"])}) for values, _, _ in cases]
    result = ruled(tmp_path, rows, preset=preset)
    assert verdicts(result) == [(reason, value) for _, reason, value in cases]
    reasons = [reason for _, reason, _ in cases if reason]
    assert result.counts == Counts(
        rows_in=len(cases),
        rows_kept=len(cases) - len(reasons),
        dropped={reason: reasons.count(reason) for reason in sorted(set(reasons), key=reasons.index)},
    )
    assert {path.name for path in Path(result.out.path).iterdir()} == {"ruled.parquet", "stage.json"}


def test_no_languages_means_all(tmp_path: Path) -> None:
    rows = [pair(lang="de"), pair(lang=None, lang_score=None, caption="?? ?? ??")]
    assert verdicts(ruled(tmp_path, rows, languages=())) == [(None, None)] * 2


def test_a_language_without_spaces_has_no_too_few_words(tmp_path: Path) -> None:
    assert verdicts(ruled(tmp_path, [pair(words=1, lang="ja")], languages=("ja",))) == [(None, None)]


def test_opt_out_can_be_ignored_where_the_person_may(tmp_path: Path) -> None:
    assert verdicts(ruled(tmp_path, [pair(page_opt_out="noai")], obey_opt_out=False)) == [(None, None)]


def blocked_part(folder: Path, rows: list[dict[str, Any]] | None) -> UPath:
    def write(_sources: Sequence[UPath], out: Path, _config: Settings) -> Counts:
        if rows is not None:
            pq.write_table(pa.Table.from_pylist(rows, schema=BLOCKED_SCHEMA), out / "blocked.parquet")
        return Counts(rows_in=0, rows_kept=0)

    return Stage("blocked", write).run((), UPath(folder), Settings()).out


def test_a_blocked_pair_says_so_whatever_else_is_wrong_with_it(tmp_path: Path) -> None:
    rows = [pair(), pair(page_opt_out="noai"), pair(url_norm=None), pair(caption=None), pair(words=1), pair()]
    blocked = [{"part": 0, "row": row, "block_reason": "blocked_host", "block_value": f"h{row}"} for row in range(5)]
    other = {"part": 1, "row": 5, "block_reason": "blocked_host", "block_value": "another part"}
    result = ruled(tmp_path, rows, blocked_part(tmp_path / "blocked", [*blocked, other]))
    assert verdicts(result) == [*(("blocked_host", f"h{row}") for row in range(5)), (None, None)]


def test_nothing_blocked_is_as_no_list_at_all(tmp_path: Path) -> None:
    rows = [pair(), pair(words=1)]
    without = ruled(tmp_path / "without", rows)
    for name, nothing in (("none", None), ("empty", [])):
        with_list = ruled(tmp_path / name, rows, blocked_part(tmp_path / name / "blocked", nothing))
        assert with_list.record.outputs == without.record.outputs


def test_the_identities_are_those_of_the_pair(tmp_path: Path) -> None:
    """The keys do not come from DuckDB's hash(), which another version may compute in another way."""
    rows = [pair(url_norm="http://h/ä.jpg", caption="Straße AM See"), pair(url_norm=None, caption=None)]
    first, second = rows_of(ruled(tmp_path, rows))
    assert f"{first['pair_upper']:016x}{first['pair_lower']:016x}" == rows[0]["pair_id"]

    def upper_half(text: str) -> int:
        digest = hashlib.md5(text.encode()).digest()
        return int.from_bytes(digest[8:], "little")

    assert first["url_key"] == upper_half("http://h/ä.jpg")
    assert first["caption_key"] == upper_half("strasse am see")
    assert second["url_key"] is None and second["caption_key"] is None
    assert (first["source"], first["part"], first["row"]) == ("s", 0, 0)


def test_the_columns_are_those_of_the_real_stage(tmp_path: Path) -> None:
    """From the rows of a source to verdicts, through the real cleaning, counting and language detection."""
    texts = [
        "A brown dog runs over the green grass",
        "IMG_1234.jpg",
        "dog",
        None,
        "Ein Hund rennt auf der grünen Wiese",
    ]
    found = [
        {"source": "s", "row": n, "url": f"http://h/{n}.jpg", "caption_raw": text, "text_key": "alt"}
        for n, text in enumerate(texts)
    ]

    def write(_sources: Sequence[UPath], out: Path, _config: Settings) -> Counts:
        pq.write_table(pa.Table.from_pylist(found, schema=ROWS_SCHEMA), out / "rows.parquet")
        return Counts(rows_in=len(found), rows_kept=len(found))

    rows = Stage("rows", write).run((), UPath(tmp_path / "rows"), Settings()).out
    pairs = Stage("pairs", make_pairs).run([rows], UPath(tmp_path / "pairs"), PairsConfig()).out
    reasons = {}
    for preset in ("webimagetext", "datacomp_basic", "laion400m"):
        config = RulesConfig.of(CurateConfig(preset=preset), QUERY)
        result = RULES.run([pairs], UPath(tmp_path / preset), config)
        reasons[preset] = [reason for reason, _ in verdicts(result)]
    assert reasons == {
        "webimagetext": [None, "file_name_caption", "short_caption", "no_caption", "language"],
        "datacomp_basic": [None, "few_words", "short_caption", "no_caption", "language"],
        "laion400m": [None, None, "short_caption", "no_caption", None],
    }


def test_a_blocked_list_with_a_row_twice_is_an_error(tmp_path: Path) -> None:
    twice = [{"part": 0, "row": 0, "block_reason": "blocked_host", "block_value": "h"}] * 2
    with pytest.raises(ValueError, match="1 rows in"):
        ruled(tmp_path, [pair()], blocked_part(tmp_path / "blocked", twice))


def test_three_sources_are_refused(tmp_path: Path) -> None:
    folder = blocked_part(tmp_path / "blocked", [])
    with pytest.raises(InputError, match="at most one of its blocked rows"):
        ruled(tmp_path, [pair()], folder, folder)


@pytest.mark.parametrize("preset", get_args(PresetName))
@pytest.mark.parametrize("phase", ["pre", "post"])
def test_every_preset_tells_its_source_and_version(preset: PresetName, phase: str) -> None:
    header = [line for line in read_sql(f"{phase}_{preset}").splitlines() if line.startswith("--")]
    assert f"-- preset   {preset}, version {PRESETS[preset].version}" in header
    told = {re.match(r"-- (\w*)", line).group(1) for line in header}  # type: ignore[union-attr]
    assert told >= {"source", "holds", "not", "in", "out"}


@pytest.mark.parametrize(
    ("curate", "images", "named"),
    [
        ({"min_caption_words": 3}, {}, "curate.min_caption_words"),
        ({"languages": ()}, {}, "curate.languages"),
        ({"max_images_per_caption": 11, "min_caption_chars": 4}, {}, "curate.min_caption_chars, curate.max_images"),
        ({}, {"min_side_px": 100}, "images.min_side_px"),
        ({}, {"min_bytes": 0}, "images.min_bytes"),
    ],
)
def test_a_number_that_the_preset_does_not_read_is_refused(
    curate: dict[str, Any], images: dict[str, Any], named: str
) -> None:
    with pytest.raises(ValidationError, match=f"{named}.*only the preset webimagetext reads this, align has"):
        BuildDatasetConfig.model_validate({"name": "x", "curate": {"preset": "align", **curate}, "images": images})
    BuildDatasetConfig.model_validate({"name": "x", "curate": curate, "images": images})


def test_a_preset_may_have_what_all_presets_read() -> None:
    """And a configuration that was written as JSON, where every field is set, is read again."""
    config = BuildDatasetConfig(
        name="x",
        curate=CurateConfig(preset="align", max_pairs=7, seed=1, obey_opt_out=False),
        images=ImageConfig(evaluation_sets=("a",)),
    )
    assert BuildDatasetConfig.model_validate_json(config.model_dump_json()) == config
    with pytest.raises(ValidationError, match=r"images\.max_aspect_ratio"):
        ImageVerdictsConfig(preset="cc12m", images=ImageConfig(max_aspect_ratio=2.0), query=QUERY)
