"""Every command that README.md and docs/ show is one that `wit` understands."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tyro

from flows import cli, data_commands, use_commands, weights
from flows.compare import CompareOptions
from flows.demo import DemoOptions
from flows.recipes import RECIPES, recipe
from pipeline.queries.config import BuildQueriesConfig
from pipeline.tiny_web.config import TinyWebConfig

CHECKOUT = Path(__file__).resolve().parents[1]
PAGES = ("README.md", *sorted(f"docs/{page.name}" for page in (CHECKOUT / "docs").glob("*.md")))
# What a command takes that is no flow.
OPTIONS: dict[str, type] = {
    "demo": DemoOptions,
    "why": data_commands.WhyOptions,
    "card": data_commands.CardOptions,
    "compare": CompareOptions,
    "verify": data_commands.VerifyOptions,
    "takedown": data_commands.TakedownOptions,
    "import-weights": weights.ImportOptions,
    "export-weights": weights.ExportOptions,
    "classify": use_commands.ClassifyOptions,
    "search": use_commands.SearchOptions,
    "embed": use_commands.EmbedOptions,
    "serve": use_commands.ServeOptions,
    "tiny-web": TinyWebConfig,
}
FLOWS: dict[str, Callable[[Any], Any]] = {
    "reproduce": lambda chosen: chosen,
    "build-dataset": lambda chosen: chosen.dataset,
    "pretrain": lambda chosen: chosen.pretrain,
    "evaluate": lambda chosen: chosen.evaluate,
}
PLACEHOLDERS = {"RECIPE": "tiny", "KIND": "moco", "PRESET": "align"}


def commands(page: str) -> list[str]:
    """The commands of a page: lines of code that begin with `$ ` (README) or a known program, less what is said of them."""
    text = re.sub(r"\s+\\\n\s+", " ", (CHECKOUT / page).read_text(encoding="utf-8"))
    lines = re.findall(r"^(?:\$ |    (?=wit ))(.+)$", text, re.MULTILINE)
    lines += re.findall(r"`(wit [a-z-]+ [^`]+)`", text)
    return [re.split(r"\s{3,}|\s+# ", line.strip())[0] for line in lines if "--help" not in line]


SHOWN = list(dict.fromkeys(command for page in PAGES for command in commands(page)))


def test_every_kind_of_command_is_known_here() -> None:
    assert {*OPTIONS, *FLOWS, "recipes", "build-queries"} == set(cli.COMMANDS)


@pytest.mark.parametrize("command", [command for command in SHOWN if command.startswith("wit ")])
def test_every_wit_command_is_understood(command: str) -> None:
    """The words must mean a valid configuration; what is then done with it is for the tests of each command."""
    for placeholder, word in PLACEHOLDERS.items():
        command = command.replace(placeholder, word)
    name, *words = shlex.split(command)[1:]
    if name == "recipes":
        assert not words
    elif name == "build-queries":
        config, _ = cli._configured(BuildQueriesConfig(name=words[0]), words[1:], name)
        assert isinstance(config, BuildQueriesConfig)
    elif name in FLOWS:
        assert words[0] in RECIPES
        default = FLOWS[name](recipe(words[0]))
        config, _ = cli._configured(default, words[1:], name)
        assert type(config) is type(default)
    else:
        assert tyro.cli(OPTIONS[name], args=words) is not None


def test_every_other_command_exists() -> None:
    makefile = (CHECKOUT / "Makefile").read_text(encoding="utf-8")
    flows = {"build-dataset", "pretrain", "evaluate"}
    for command in SHOWN:
        words = shlex.split(command)
        if words[0] == "make":
            assert re.search(rf"^{words[1]}:", makefile, re.MULTILINE), command
        elif words[0] == "prefect":
            assert words[:3] == ["prefect", "deployment", "run"] and words[3] in flows, command
        elif words[0] == "cp":
            assert (CHECKOUT / words[1]).exists(), command
        else:
            assert words[0] in ("wit", "source", "docker"), command


def test_every_link_leads_somewhere() -> None:
    for page in PAGES:
        text = (CHECKOUT / page).read_text(encoding="utf-8")
        links = [link for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link]
        links += re.findall(r"\b(docs/\w+\.md|model/[\w/]+\.py|pipeline/[\w/]+\.py|flows/[\w/]+\.py)\b", text)
        for link in links:
            assert (CHECKOUT / page).parent.joinpath(link).exists() or (CHECKOUT / link).exists(), f"{page}: {link}"
