"""Remote shards in an S3 bucket, and what is kept of them on a local disk: a real server that counts what it is asked for."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import s3fs
import torch
from moto.server import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from shards_for_model import colour_samples, write_shards
from werkzeug.serving import make_server

from model.config import DataConfig, PretrainConfig
from model.data import Batch, Dataset, Loader, Order, open_dataset
from model.data.sources import open_data
from model.tokenizer import Tokenizer

SAMPLES = colour_samples(24)
ORDER = Order(samples=24, global_batch=8, seed=0)
EPOCH = ORDER.steps_per_epoch
ROOT = "s3://cached/colours"


class Counting:
    """A WSGI application, and how often each tar was asked for."""

    def __init__(self, application: Callable[..., Iterable[bytes]]) -> None:
        self.application = application
        self.asked: Counter[str] = Counter()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ["PATH_INFO"].endswith(".tar"):
            self.asked[environ["PATH_INFO"].removeprefix("/cached/colours/")] += 1
        return self.application(environ, start_response)


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("local") / "colours", SAMPLES, SAMPLES[:3])


@pytest.fixture(scope="module")
def server(local: Path) -> Iterator[Counting]:
    """An S3 server that holds the shards, found as a user's is: by the environment."""
    counting = Counting(DomainDispatcherApplication(create_backend_app))
    served = make_server("127.0.0.1", 0, counting, threaded=True, request_handler=MotoRequestHandler)
    thread = threading.Thread(target=served.serve_forever)
    thread.start()
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{served.server_port}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patched.setenv(name, "any")
        s3fs.S3FileSystem.clear_instance_cache()
        store = s3fs.S3FileSystem()
        store.mkdir("cached")
        for file in local.rglob("*"):
            if file.is_file():
                store.pipe_file(f"cached/colours/{file.relative_to(local)}", file.read_bytes())
        yield counting
        s3fs.S3FileSystem.clear_instance_cache()
    served.shutdown()
    served.server_close()
    thread.join(30)


@pytest.fixture
def asked(server: Counting) -> Counter[str]:
    server.asked.clear()
    return server.asked


@pytest.fixture(scope="module")
def expected(local: Path) -> list[Batch]:
    return batches(open_dataset(str(local)), 0)


def batches(dataset: Dataset, epoch: int) -> list[Batch]:
    tokenizer = Tokenizer.train((caption for _, caption in SAMPLES), 300, 32)
    loader = Loader(dataset.train, tokenizer, ORDER, image_px=32, threads=2)
    return list(loader.batches(epoch * EPOCH, (epoch + 1) * EPOCH))


def opened(cache_folder: Path) -> Dataset:
    """As a run does that is started anew: nothing is known but the folder's name."""
    s3fs.S3FileSystem.clear_instance_cache()
    data = DataConfig(cache_folder=str(cache_folder))
    return open_data(ROOT, [], PretrainConfig(name="x", dataset=ROOT, data=data))


def assert_same(found: list[Batch], expected: list[Batch]) -> None:
    assert len(found) == len(expected) == EPOCH == 3
    for one, other in zip(found, expected, strict=True):
        assert one.sample_ids.tolist() == other.sample_ids.tolist()
        assert torch.equal(one.image_BHWC, other.image_BHWC) and torch.equal(one.tokens_BL, other.tokens_BL)


def test_epochs_after_the_first_ask_the_bucket_for_nothing(
    asked: Counter[str], local: Path, expected: list[Batch], tmp_path: Path
) -> None:
    dataset = opened(tmp_path)
    assert not asked
    assert_same(batches(dataset, 0), expected)
    assert asked == {"train/000000.tar": 10, "train/000010.tar": 10, "train/000020.tar": 4}
    asked.clear()
    assert_same(batches(dataset, 1), batches(open_dataset(str(local)), 1))
    assert_same(batches(opened(tmp_path), 0), expected)
    assert not asked
    assert_same(batches(open_dataset(ROOT), 0), expected)
    assert asked.total() == 24


def test_what_the_disk_damaged_is_asked_for_again(asked: Counter[str], expected: list[Batch], tmp_path: Path) -> None:
    assert_same(batches(opened(tmp_path), 0), expected)
    asked.clear()
    first, second, _ = sorted(tmp_path.glob("*.tar"), key=lambda path: path.stat().st_size, reverse=True)
    content = bytearray(first.read_bytes())
    content[700] ^= 1  # in the image of its first sample
    first.write_bytes(content)
    second.write_bytes(b"")
    assert_same(batches(opened(tmp_path), 0), expected)
    assert sorted(asked.values()) == [1, 10]
    asked.clear()
    assert_same(batches(opened(tmp_path), 0), expected)
    assert not asked
