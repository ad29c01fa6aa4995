"""`wit demo`: the whole walk on the embedded tiny web, watched from a terminal and from Prefect's UI, told at the end."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.recipes import Recipe, tiny
from flows.workspace import Workspace
from pipeline.tiny_web.config import TinyWebConfig
from pipeline.tiny_web.scenes import ALL_COMBINATIONS, HELD_OUT_COMBINATIONS

STORY = """
What happens now, all of it on this machine and without a network:
  1. a small web is served on loopback ports {first_port} and up, and crawled (robots.txt obeyed)
  2. SQL gives every image-text pair a verdict, and the good ones are downloaded, judged again and packed into shards
  3. CLIP learns from them on two processes: which text goes with which picture, nothing else
  4. it is shown {unseen} kinds of things that it has never seen, and finds their names among {classes}: zero-shot
"""


@dataclass
class DemoOptions:
    """The whole walk on the embedded tiny web, offline, on a laptop's CPU."""

    workspace: str = ""
    """Folder of the workspace; empty = $WIT_WORKSPACE, else ./workspace."""
    base_port: int = 8700
    """Port of the embedded web's first site; the others follow."""
    ui_port: int = 4200
    """Port of Prefect's UI for the time of the demo; 0 = no UI."""
    pairs: int = 6000
    """Good image-text pairs of the embedded web."""
    epochs: int = tiny().pretrain.train.epochs
    """Passes over them."""


def demo(options: DemoOptions) -> None:
    """Run the walk and tell its end."""
    from flows.reproduce import reproduce

    recipe = _recipe(options)
    started = time.monotonic()
    unseen, classes = len(HELD_OUT_COMBINATIONS), len(ALL_COMBINATIONS)
    print(STORY.format(first_port=options.base_port, unseen=unseen, classes=classes), flush=True)
    with _watchable(options.ui_port):
        folder = Path(reproduce(recipe, options.workspace))
    print(_ending(folder, options.workspace, recipe, time.monotonic() - started), flush=True)


def _recipe(options: DemoOptions) -> Recipe:
    recipe = tiny()
    source = recipe.dataset.source
    web = source.tiny_web.model_copy(update={"base_port": options.base_port, "pairs": options.pairs})
    dataset = recipe.dataset.model_copy(update={"source": source.model_copy(update={"tiny_web": web})})
    train = recipe.pretrain.train.model_copy(update={"epochs": options.epochs})
    changed = {"dataset": dataset, "pretrain": recipe.pretrain.model_copy(update={"train": train})}
    # Built anew, not copied: the options are checked like everything else.
    return Recipe.model_validate(
        {**recipe.model_dump(), **{name: value.model_dump() for name, value in changed.items()}}
    )


@contextmanager
def _watchable(port: int) -> Iterator[None]:
    """Prefect's server and UI for the length of the block, unless one is configured or runs already."""
    from prefect.logging.handlers import APILogHandler
    from prefect.settings import PREFECT_API_URL, PREFECT_UI_URL, temporary_settings

    from flows.plugin import ui_url
    from flows.stack import port_problem, running_server
    from flows.temporary_server import server

    if url := PREFECT_API_URL.value():
        print(f"Watch it in Prefect's UI: {url.removesuffix('/api')}\n", flush=True)
    elif port and (problem := port_problem(port)):
        print(f"(Port {port}: {problem}; no UI this time. wit demo --ui-port {port + 1} gives one.)\n", flush=True)
    elif port:
        with (
            running_server(port) as api_url,
            temporary_settings({PREFECT_API_URL: api_url, PREFECT_UI_URL: PREFECT_UI_URL.value() or ui_url(api_url)}),
        ):
            print(f"Watch it in Prefect's UI: {api_url.removesuffix('/api')}\n", flush=True)
            try:
                yield
            finally:
                APILogHandler().flush()  # before the server that the last lines go to is gone
        return
    with server():
        yield


def _example_url(space: Workspace, recipe: Recipe) -> str:
    """The image of the first sample: one that `wit why` has something to tell of."""
    import pyarrow.parquet as pq

    # By path: the demo's workspace is local, for runs have to be.
    samples = pq.ParquetFile(space.shards(recipe.dataset.name).path + "/train/samples.parquet").read(columns=["url"])
    return str(samples["url"][0].as_py())


def _told(row: Mapping[str, Any]) -> str:
    """A set in a line; the probe where it was measured, else the evaluation's own lines have said why not."""
    probe = row["probe_percent"]
    return (
        f"  {row['set']:<20} {row['accuracy_percent']:.1f} % right "
        f"[{row['low_percent']:.1f}, {row['high_percent']:.1f}], by chance {row['chance_percent']:.1f} %"
        + ("" if probe is None else f"; a linear probe, which is shown labelled pictures: {probe:.1f} %")
    )


def _ending(folder: Path, workspace_option: str, recipe: Recipe, seconds: float) -> str:
    space = Workspace.at(workspace_option)
    rows: list[dict[str, Any]] = json.loads((folder / "summary.json").read_text(encoding="utf-8"))["rows"]
    table = "\n".join(map(_told, rows))
    workspace = f" --workspace {shlex.quote(workspace_option)}" if workspace_option else ""
    port = recipe.dataset.source.tiny_web.base_port
    web = "" if port == TinyWebConfig().base_port else f" --base-port {port} "
    return f"""
The walk took {int(seconds) // 60} min {int(seconds) % 60} s.

{table}

  report      {folder / "report.html"}   <- open it in a browser
  shards      {space.shards(recipe.dataset.name)}
  model       {space.run(recipe.pretrain.name)}

What to do next (first: source .venv/bin/activate)
  wit why tiny {_example_url(space, recipe)}{workspace}
                                  what became of a pair, from page to shard
  wit search tiny "a blue circle" --model tiny{workspace}
                                  images of the data set by words
  wit serve tiny{workspace}
                                  a page to drop images on
  wit tiny-web{web:<20}look at the embedded web in a browser
  wit pretrain tiny --name longer --train.epochs 40{workspace}
  make up                         Prefect's server, a worker and the deployments: prefect deployment run build-dataset
"""
