"""The one place that names folders."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout
from upath import UPath

from pipeline.config import MOST_RETRY_PASSES
from pipeline.errors import InputError
from pipeline.stage import is_local, read_record

WORKSPACE_VARIABLE = "WIT_WORKSPACE"


@dataclass(frozen=True)
class StageFolders:
    """Where the stages of one piece of work lie."""

    root: UPath

    def part(self, stage: str, number: int) -> UPath:
        """Folder of one part of a stage that is done part by part."""
        return self.root / stage / f"part-{number:05d}"

    def parts(self, stage: str) -> list[UPath]:
        """The finished parts of such a stage, in order."""
        folder = self.root / stage
        if not folder.is_dir():
            return []
        return sorted((part for part in folder.iterdir() if read_record(part) is not None), key=lambda part: part.name)

    def whole(self, stage: str) -> UPath:
        """Folder of a stage that is done in one go."""
        return self.root / stage


class DatasetFolders(StageFolders):
    """Where the stages of one data set lie."""

    @property
    def shards(self) -> UPath:
        """The folder that training reads; docs/shards.md is its contract."""
        return self.root / "shards"

    @staticmethod
    def download_pass(number: int) -> str:
        """Name of the stage that fetches images the first time (0), or again where that failed."""
        return f"retries_{number}" if number else "downloads"

    def all_downloads(self) -> list[UPath]:
        """The finished parts of all passes, in order."""
        return [part for number in range(MOST_RETRY_PASSES + 1) for part in self.parts(self.download_pass(number))]


class QueryListFolders(StageFolders):
    """Where the stages of one query list lie."""

    @property
    def queries(self) -> UPath:
        """The folder that matching reads: queries.parquet, one row per query (sql/query_list.sql)."""
        return self.root / "queries"


@dataclass(frozen=True)
class Workspace:
    """A folder, or a prefix of an object store, that holds data sets, query lists, runs and evaluations."""

    root: UPath

    @classmethod
    def at(cls, path: str) -> Workspace:
        """The workspace at `path`; if empty, at $WIT_WORKSPACE, else ./workspace."""
        wanted = path or os.environ.get(WORKSPACE_VARIABLE) or "workspace"
        try:
            root = UPath(wanted)
        except (ValueError, ImportError) as error:
            raise InputError(f"workspace {wanted}: {error}; give a folder, or s3://bucket/prefix") from error
        if not is_local(root):
            return cls(root)
        local = Path(root.path).absolute()
        if local.exists() and not local.is_dir():
            raise InputError(f"workspace {local}: not a folder; choose another --workspace")
        return cls(UPath(local))

    def dataset(self, name: str) -> DatasetFolders:
        return DatasetFolders(self.root / "datasets" / name)

    def existing_dataset(self, name: str) -> DatasetFolders:
        """The same, of a data set that was begun. Raises InputError, which names those that there are."""
        folders = self.dataset(name)
        if not folders.root.is_dir():
            every = self.root / "datasets"
            there = sorted(entry.name for entry in every.iterdir() if entry.is_dir()) if every.is_dir() else []
            raise InputError(f"workspace {self.root} has no data set {name!r}, it has {', '.join(there) or 'none'}")
        return folders

    def existing_shards(self, dataset: str) -> UPath:
        """Folder of shards of a data set that was begun, given by name, or by path if it holds a slash. Raises InputError."""
        return UPath(dataset) if "/" in dataset else self.existing_dataset(dataset).shards

    def query_list_folders(self, name: str) -> QueryListFolders:
        return QueryListFolders(self.root / "query_lists" / name)

    @property
    def crawl_cache(self) -> Path:
        """Pages fetched so far, so that a killed crawl fetches none twice; always local, safe to delete."""
        return self._cache / "pages"

    @property
    def image_cache(self) -> Path:
        """Images of parts whose download is under way, so that a kill costs none; always local, safe to delete."""
        return self._cache / "images"

    @property
    def file_cache(self) -> Path:
        """Remote files that were copied to be read; always local, safe to delete."""
        return self._cache / "files"

    @property
    def embedding_cache(self) -> Path:
        """Vectors of data sets' images, by model and tar, that `wit search` reads; always local, safe to delete."""
        return self._cache / "embeddings"

    @property
    def evaluation_sets(self) -> UPath:
        return self.root / "evaluation_sets"

    @property
    def tombstones(self) -> UPath:
        """All that was ever asked to be taken down; every build leaves it out."""
        return self.root / "tombstones.parquet"

    def shards(self, dataset: str) -> UPath:
        """Folder of shards of a data set given by name, or by path if it holds a slash."""
        return UPath(dataset) if "/" in dataset else self.dataset(dataset).shards

    def query_list(self, name: str) -> UPath:
        """Folder with the queries.parquet of a list given by name, or by path if it holds a slash."""
        return UPath(name) if "/" in name else self.query_list_folders(name).queries

    def finished_query_list(self, name: str) -> UPath:
        """The same, of a list that is whole. Raises InputError if there is none."""
        folder = self.query_list(name)
        if read_record(folder) is None:
            remedy = (
                "check the path" if "/" in name else f"make it: wit build-queries {name}, or give the path of a folder"
            )
            raise InputError(f"queries.query_list: {folder} is no finished query list; {remedy}")
        return folder

    def run(self, run: str) -> Path:
        """Folder of a training run given by name, or by path if it holds a slash."""
        return Path(run) if "/" in run else self._local("runs") / run

    def run_label(self, run: Path) -> str:
        """What a folder of a run is called in the names of other folders: runs/tiny/best is tiny-best."""
        runs, own = self._local("runs"), run.absolute()
        return "-".join(own.relative_to(runs).parts) if own.is_relative_to(runs) else own.name

    def evaluation(self, name: str) -> Path:
        """Folder of an evaluation given by name, or by path if it holds a slash."""
        return Path(name) if "/" in name else self._local("evals") / name

    def evaluation_set(self, name: str) -> UPath:
        """Folder of an evaluation set given by name, or by path if it holds a slash."""
        return UPath(name) if "/" in name else self.evaluation_sets / name

    @property
    def _cache(self) -> Path:
        base = Path(self.root.path) if is_local(self.root) else Path.home() / ".cache" / "webimagetext"
        return base / "cache"

    def _local(self, kind: str) -> Path:
        if not is_local(self.root):
            raise InputError(
                f"workspace {self.root}: runs and evaluations need a local folder; give a local --workspace, "
                f"and name the data set by its path ({self.root}/datasets/NAME/shards)"
            )
        return Path(self.root.path) / kind


@contextmanager
def only_writer(folder: Path | UPath) -> Iterator[None]:
    """Hold `folder` for writing; a second writer on this machine is refused rather than mixed in."""
    if isinstance(folder, UPath) and not is_local(folder):
        yield
        return
    local = Path(folder.path if isinstance(folder, UPath) else folder)
    try:
        local.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{local.parent}: cannot be made ({error.strerror}); choose another --workspace") from error
    lock = FileLock(local.with_name(f".{local.name}.lock"), timeout=0)
    try:
        with lock:
            yield
    except Timeout as error:
        raise InputError(f"{local}: another run is writing here; wait for it, or choose another name") from error
