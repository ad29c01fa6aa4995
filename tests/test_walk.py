"""The whole walk, small: real HTTP, real img2dataset, two real ranks, a real Prefect server, the command a user types."""

from __future__ import annotations

import json
import math
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import s3fs
from conftest import BIN, PrefectServer, free_port
from walk import Wit, dataset_options, shard_bytes, small_web, wait_until_quiet

from pipeline.tiny_web.config import TinyWebConfig
from pipeline.tiny_web.world import World

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
TRAINING = ("--pretrain.train.epochs", "4", "--pretrain.train.global-batch", "32", "--pretrain.train.warmup-steps", "4")
FEW_SHOT = ("--evaluate.few-shot", "1")
# Told after the stage of that name, so each kill finds another stage at work.
KILL_AFTER = ("View at", "sources:", "rules:", "selection:", "download:")


@pytest.fixture(scope="module")
def web() -> TinyWebConfig:
    return small_web()


@pytest.fixture(scope="module")
def walked(prefect_server: PrefectServer, web: TinyWebConfig, tmp_path_factory: pytest.TempPathFactory) -> Wit:
    wit = Wit(prefect_server, tmp_path_factory.mktemp("walk") / "workspace")
    wit.ok("reproduce", "tiny", *dataset_options(web, "dataset."), *TRAINING, *FEW_SHOT)
    return wit


def test_every_pair_met_the_fate_that_the_web_had_planned_for_it(walked: Wit, web: TinyWebConfig) -> None:
    manifest = json.loads((walked.workspace / "datasets/tiny/shards/manifest.json").read_text())
    stages = {stage["stage"]: stage for stage in manifest["funnel"]}
    verdicts = {**stages["rules"]["dropped"], **stages["images"]["dropped"], "kept": stages["images"]["rows_kept"]}
    assert verdicts == World(web).expected_counts()
    assert sum(split["samples"] for split in manifest["splits"].values()) == verdicts["kept"]


def test_each_kept_pair_is_the_right_one(walked: Wit, web: TinyWebConfig) -> None:
    shards = walked.workspace / "datasets/tiny/shards"
    packed = {
        (row["url"], row["caption"])
        for split in ("train", "val")
        for row in pq.read_table(shards / split / "samples.parquet").to_pylist()
    }
    truth = World(web).truth()
    surely_kept = {(pair.image_url, pair.caption) for pair in truth if pair.reason is None and pair.group is None}
    may_be_kept = surely_kept | {(pair.image_url, pair.caption) for pair in truth if pair.group is not None}
    assert surely_kept <= packed <= may_be_kept


def test_it_ends_with_results_and_a_report(walked: Wit) -> None:
    folder = walked.workspace / "evals/tiny"
    rows = {row["set"]: row for row in json.loads((folder / "summary.json").read_text())["rows"]}
    assert {"tiny-web-unseen", "tiny-web-seen"} <= set(rows)
    # Of both sets together: one in 64 is right by chance, and so little training brings it to some six, or by bad luck to one.
    probed, chance = (
        sum(rows[name][field] for name in ("tiny-web-unseen", "tiny-web-seen"))
        for field in ("probe_percent", "chance_percent")
    )
    assert probed > chance
    assert "tiny-web-unseen" in (folder / "report.html").read_text()
    metrics = [json.loads(line) for line in (walked.workspace / "runs/tiny/metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in metrics if line["kind"] == "train"]
    assert sum(losses[-3:]) / 3 < math.log(32), "it tells the pairs of a batch apart better than one that guesses"


def test_the_same_command_again_does_nothing_again(walked: Wit, web: TinyWebConfig) -> None:
    before = {path: path.stat().st_mtime_ns for path in walked.workspace.rglob("*.tar")}
    said = walked.ok("reproduce", "tiny", *dataset_options(web, "dataset."), *TRAINING, *FEW_SHOT)
    assert said.count("(done before)") >= 5
    assert {path: path.stat().st_mtime_ns for path in walked.workspace.rglob("*.tar")} == before


def test_why_follows_a_pair_from_page_to_shard(walked: Wit, web: TinyWebConfig) -> None:
    truth = World(web).truth()
    kept = next(pair for pair in truth if pair.reason is None and pair.group is None)
    told = walked.ok("why", "tiny", kept.image_url)
    assert "rules     kept" in told and "image     kept" in told and ".tar sample" in told
    opted_out = next(pair for pair in truth if pair.reason == "opted_out")
    assert "opted_out" in walked.ok("why", "tiny", opted_out.image_url)
    nothing = walked.run("why", "tiny", "http://nowhere.example/x.jpg")
    assert nothing.returncode == 2 and nothing.stderr.startswith("error: http://nowhere.example/x.jpg: no pair")


def test_what_is_taken_down_stays_out_of_the_next_build_which_finds_all_done(
    walked: Wit, web: TinyWebConfig, prefect_server: PrefectServer, tmp_path: Path
) -> None:
    wit = Wit(prefect_server, tmp_path / "workspace")
    shutil.copytree(walked.workspace, wit.workspace)
    data = wit.workspace / "datasets/tiny"
    url = pq.read_table(data / "shards/train/samples.parquet")["url"][0].as_py()
    (tmp_path / "urls.txt").write_text(url)
    assert "1 shards written anew" in wit.ok("takedown", "tiny", "--urls", str(tmp_path / "urls.txt"))
    files = [*data.glob("shards/**/*"), data / "card/card.html"]
    before = {path: path.stat().st_mtime_ns for path in files}
    wit.ok("build-dataset", "tiny", *dataset_options(web))
    assert {path: path.stat().st_mtime_ns for path in files} == before
    assert "shard     taken down" in wit.ok("why", "tiny", url)
    assert "all as promised" in wit.ok("verify", "tiny")


def test_another_configuration_under_the_same_name_is_refused(walked: Wit) -> None:
    refused = walked.run("pretrain", "tiny", "--train.epochs", "9")
    assert refused.returncode == 2
    assert "train.epochs: 4 then, 9 now" in refused.stderr and "Traceback" not in refused.stderr


def test_killed_five_times_the_shards_are_those_of_an_undisturbed_run(
    walked: Wit, web: TinyWebConfig, prefect_server: PrefectServer, tmp_path: Path
) -> None:
    wit = Wit(prefect_server, tmp_path / "workspace")
    command = ["build-dataset", "tiny", *dataset_options(web)]
    for line in KILL_AFTER:
        status, said = wit.signal_at(line, signal.SIGKILL, command)
        assert status == -signal.SIGKILL, said
        assert wait_until_quiet(wit.workspace) == []
    wit.ok(*command)
    assert shard_bytes(wit.workspace) == shard_bytes(walked.workspace)


def test_ctrl_c_leaves_no_process_and_says_how_to_go_on(
    walked: Wit, prefect_server: PrefectServer, tmp_path: Path
) -> None:
    shards = walked.workspace / "datasets/tiny/shards"
    wit = Wit(prefect_server, tmp_path / "workspace")
    command = ["pretrain", "tiny", "--dataset", str(shards), "--train.epochs", "200", "--train.global-batch", "32"]
    status, said = wit.signal_at("step ", signal.SIGINT, command)
    assert status == 130 and "go on with the same command" in said, said
    assert wait_until_quiet(wit.workspace) == []
    assert list((wit.workspace / "runs/tiny/checkpoints").glob("step-*/checkpoint.json"))


@pytest.fixture
def object_store() -> Iterator[dict[str, str]]:
    """An S3 server with the bucket `wit`; gives the environment that leads to it."""
    endpoint = f"http://127.0.0.1:{(port := free_port())}"
    server = subprocess.Popen(
        [str(BIN / "moto_server"), "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        files = s3fs.S3FileSystem(endpoint_url=endpoint, key="any", secret="any", skip_instance_cache=True)
        for _ in range(100):
            try:
                files.mkdir("wit")
                break
            except OSError:
                time.sleep(0.2)
        yield {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ACCESS_KEY_ID": "any",
            "AWS_SECRET_ACCESS_KEY": "any",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
    finally:
        server.terminate()
        server.wait()


def test_an_object_store_holds_the_same_samples_whatever_fetched_them_and_training_mixes_them_with_others(
    walked: Wit, web: TinyWebConfig, prefect_server: PrefectServer, object_store: dict[str, str], tmp_path: Path
) -> None:
    wit = Wit(prefect_server, tmp_path / "workspace", **object_store)
    files = s3fs.S3FileSystem(endpoint_url=object_store["AWS_ENDPOINT_URL"], key="any", secret="any")
    bucket = ("--workspace", "s3://wit/space")
    build = ["build-dataset", "tiny", *dataset_options(web), "--download.backend", "img2dataset", *bucket]
    wit.ok(*build)
    root = "wit/space/datasets/tiny/shards/"
    stored = {name.removeprefix(root): files.cat_file(name) for name in files.find(root)}
    del stored["stage.json"]
    local = shard_bytes(walked.workspace)
    ours, theirs = (json.loads(folder.pop("manifest.json")) for folder in (local, stored))
    assert stored == local
    assert [manifest["config"]["download"].pop("backend") for manifest in (ours, theirs)] == ["native", "img2dataset"]
    assert theirs.pop("parents") != ours.pop("parents"), "each names what it was made from"
    assert theirs == ours
    assert wit.ok(*build, "--until", "selection").count("(done before)") == 3
    url = pq.read_table(walked.workspace / "datasets/tiny/shards/train/samples.parquet")["url"][0].as_py()
    assert "shard     train/" in wit.ok("why", "tiny", url, *bucket)

    near, far = str(walked.workspace / "datasets/tiny/shards"), f"s3://{root}"
    mixed = ("--dataset", far, "--data.mix", near, "1", far, "1")
    alone = ("--train.processes", "1", "--train.epochs", "1", "--train.global-batch", "32")
    wit.ok("pretrain", "tiny", *mixed, *alone)
    assert (wit.workspace / "runs/tiny/model.safetensors").is_file()
    lines = [json.loads(line) for line in (wit.workspace / "runs/tiny/metrics.jsonl").read_text().splitlines()]
    of_step = [line["samples_of"] for line in lines if line["kind"] == "train"]
    assert of_step and all(of.keys() == {near, far} and sum(of.values()) == 32 for of in of_step)

    with files.open("wit/list.parquet", "wb") as file:
        pq.write_table(pa.table({"url": ["http://example.org/a.jpg"], "caption": ["a dog runs on the beach"]}), file)
    said = wit.ok(
        "build-dataset", "url-list", "--source.url-list.paths", "s3://wit/*.parquet", "--until", "selection", *bucket
    )
    assert "rules: 1 of 1 kept" in said
