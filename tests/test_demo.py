"""What `wit demo` says at its start and its end is true, and the commands it names are understood."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import tyro

from flows import cli, data_commands, use_commands
from flows.demo import STORY, DemoOptions, _ending, _recipe
from pipeline.tiny_web.config import TinyWebConfig

ROW = {
    "set": "tiny-web-unseen",
    "accuracy_percent": 83.0,
    "low_percent": 79.8,
    "high_percent": 85.9,
    "chance_percent": 1.6,
    "probe_percent": 94.3,
}


def test_the_story_has_a_place_for_every_number() -> None:
    assert "shown 24 kinds of things" in STORY.format(first_port=8700, unseen=24, classes=64)


def test_the_commands_at_the_end_are_understood(tmp_path: Path) -> None:
    space = tmp_path / "a space"
    samples = space / "datasets" / "tiny" / "shards" / "train" / "samples.parquet"
    samples.parent.mkdir(parents=True)
    pq.write_table(pa.table({"url": ["http://127.0.0.1:9700/a.jpg"]}), samples)
    unprobed = {**ROW, "set": "tiny-web-seen", "probe_percent": None}
    (tmp_path / "summary.json").write_text(json.dumps({"rows": [ROW, unprobed]}))
    recipe = _recipe(DemoOptions(base_port=9700))
    told = _ending(tmp_path, str(space), recipe, 61)
    assert told.count("83.0 % right") == 2 and told.count("linear probe") == 1
    commands = [shlex.split(line) for line in told.splitlines() if line.startswith("  wit ")]
    named = {words[1]: words[2:] for words in commands}
    assert {"why", "search", "serve", "tiny-web", "pretrain"} == set(named)
    asked = tyro.cli(data_commands.WhyOptions, args=named["why"])
    assert asked.workspace == str(space) and asked.wanted == "http://127.0.0.1:9700/a.jpg"
    assert tyro.cli(use_commands.SearchOptions, args=named["search"]).workspace == str(space)
    assert tyro.cli(use_commands.ServeOptions, args=named["serve"]).workspace == str(space)
    web = [word for word in named["tiny-web"][:2] if word != "look"]
    assert tyro.cli(TinyWebConfig, args=web).base_port == 9700
    config, others = cli._configured(recipe.pretrain, named["pretrain"][1:], "pretrain")
    assert others["workspace"] == str(space) and config.name == "longer"
