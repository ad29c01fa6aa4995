"""Remote shards, served over HTTP, and what is kept of them on a local disk."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web
from shards_for_model import colour_samples, write_shards

from model.config import DataConfig, PretrainConfig
from model.data import Dataset, SampleError, open_dataset
from model.data.cache import SampleCache
from model.data.sources import open_data
from model.errors import InputError

SAMPLES = colour_samples(47)
PLENTY = 10**9
LARGE = [(b"\xff\xd8" + bytes([number]) * 40_000, f"picture {number}") for number in range(24)]


@dataclass
class Site:
    """A folder on the web, and how often each tar of it was asked for."""

    url: str
    folder: Path
    asked: Counter[str] = field(default_factory=Counter)


@pytest.fixture(scope="module")
def web_root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    root = tmp_path_factory.mktemp("site")
    site = Site("", root)

    @web.middleware
    async def count(request: web.Request, handler: object) -> web.StreamResponse:
        if request.path.endswith(".tar"):
            site.asked[request.path] += 1
        return await handler(request)  # type: ignore[operator]

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def start() -> web.AppRunner:
        app = web.Application(middlewares=[count])
        app.router.add_static("/", root)
        runner = web.AppRunner(app)
        await runner.setup()
        server = web.TCPSite(runner, "127.0.0.1", 0)
        await server.start()
        site.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        return runner

    runner = asyncio.run_coroutine_threadsafe(start(), loop).result(30)
    yield site
    asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(30)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(30)
    loop.close()


@pytest.fixture
def site(web_root: Site) -> Site:
    web_root.asked.clear()
    return web_root


@pytest.fixture(scope="module")
def colours(web_root: Site) -> str:
    write_shards(web_root.folder / "colours", SAMPLES, SAMPLES[:3])
    return f"{web_root.url}/colours"


@pytest.fixture(scope="module")
def large(web_root: Site) -> str:
    write_shards(web_root.folder / "large", LARGE, per_shard=4)
    return f"{web_root.url}/large"


def read_all(dataset: Dataset, samples: list[tuple[bytes, str]] = SAMPLES) -> None:
    """By several threads, as a loader does, and all as they were packed."""
    with ThreadPoolExecutor(4) as pool:
        read = list(pool.map(dataset.train.read, range(len(samples))))
    assert [(sample.image, sample.caption) for sample in read] == samples


def test_each_sample_is_fetched_once_for_all_processes_of_a_machine(site: Site, colours: str, tmp_path: Path) -> None:
    read_all(open_dataset(colours, SampleCache(tmp_path / "cache", PLENTY)))
    assert site.asked.total() == 47
    for _ in range(2):  # another process holds nothing but the folder's name either
        read_all(open_dataset(colours, SampleCache(tmp_path / "cache", PLENTY)))
    assert site.asked.total() == 47
    read_all(open_dataset(colours))
    assert site.asked.total() == 94


def test_only_what_is_read_is_fetched(site: Site, large: str, tmp_path: Path) -> None:
    dataset = open_dataset(large, SampleCache(tmp_path, PLENTY))
    assert dataset.train.read(9).caption == "picture 9"
    assert site.asked == {"/large/train/000008.tar": 1}
    assert 40_000 <= used(tmp_path) < 80_000


def test_damaged_samples_are_fetched_again(site: Site, colours: str, tmp_path: Path) -> None:
    read_all(open_dataset(colours, SampleCache(tmp_path, PLENTY)))
    files = sorted(tmp_path.glob("*.tar"))
    assert len(files) == 5
    content = bytearray(files[0].read_bytes())
    content[700] ^= 1  # in the image of its first sample
    files[0].write_bytes(content)
    files[1].write_bytes(files[1].read_bytes()[:-2000])  # as a write that was cut off leaves its last sample
    files[2].unlink()
    site.asked.clear()
    read_all(open_dataset(colours, SampleCache(tmp_path, PLENTY)))
    assert 12 <= site.asked.total() <= 13 and len(site.asked) == 3
    site.asked.clear()
    read_all(open_dataset(colours, SampleCache(tmp_path, PLENTY)))
    assert not site.asked


def used(folder: Path) -> int:
    return sum(file.stat().st_blocks * 512 for file in folder.glob("*.tar"))


def test_the_bound_holds_and_what_was_read_last_stays(site: Site, large: str, tmp_path: Path) -> None:
    limit = 16 * 40_000  # of 24 samples
    dataset = open_dataset(large, SampleCache(tmp_path, limit))
    for number in range(24):
        dataset.train.read(number)
        dataset.train.read(0)  # the oldest tar, but the one that is used most
        assert used(tmp_path) <= limit
    assert site.asked["/large/train/000000.tar"] == 4
    site.asked.clear()
    read_all(dataset, LARGE)
    assert 0 < site.asked.total() < 24
    assert used(tmp_path) <= limit
    SampleCache(tmp_path, limit // 2)  # a later run with a smaller bound
    assert 0 < used(tmp_path) <= limit // 2


def test_a_remote_sample_that_is_damaged_is_named_and_not_kept(site: Site, tmp_path: Path) -> None:
    folder = write_shards(site.folder / "damaged", SAMPLES[:10])
    tar = folder / "train/000000.tar"
    data = bytearray(tar.read_bytes())
    data[600] ^= 1
    tar.write_bytes(data)
    dataset = open_dataset(f"{site.url}/damaged", SampleCache(tmp_path, PLENTY))
    for _ in range(2):
        with pytest.raises(
            SampleError, match=r"damaged/train/000000\.tar: sample 000000000: .* or is damaged; the data set"
        ):
            dataset.train.read(0)
    assert site.asked.total() == 2 and dataset.train.read(1).caption == SAMPLES[1][1]


def test_a_folder_that_cannot_be_used_is_named(colours: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    config = PretrainConfig(name="x", dataset="x", data=DataConfig(cache_folder=str(tmp_path / "file" / "cache")))
    with pytest.raises(InputError, match=r"data\.cache_folder .*/file/cache: cannot be used .*; free space there"):
        open_data(colours, [], config)
    near = config.model_copy(update={"data": DataConfig(cache_folder=str(tmp_path / "cache"))})
    read_all(open_data(colours, [], near))
    assert len(list((tmp_path / "cache").glob("*.tar"))) == 5


def test_local_shards_are_read_where_they_are(site: Site, colours: str, tmp_path: Path) -> None:
    read_all(open_dataset(str(site.folder / "colours"), SampleCache(tmp_path, PLENTY)))
    assert not list(tmp_path.glob("*.tar")) and not site.asked
