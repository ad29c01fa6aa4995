"""A stage: files in, files out, done when its `stage.json` exists.

The marker is written last and holds a fingerprint of everything the output depends on. The same fingerprint means the work is
done; any other means it is done anew, in a scratch folder that takes its name only when it is whole. That is the only resume
mechanism of the data side: kill a run at any instant, start it again, and the bytes are those of an undisturbed run.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from upath import UPath

from pipeline.errors import InputError
from pipeline.query import sql_digest
from pipeline.scratch import scratch_folder

MARKER = "stage.json"
CHUNK_BYTES = 1 << 20

ConfigT = TypeVar("ConfigT", bound=BaseModel)


class Counts(BaseModel):
    """Rows that entered a stage and what became of them: `rows_in = rows_kept + sum(dropped)`, always."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows_in: int
    rows_kept: int
    dropped: dict[str, int] = {}

    @model_validator(mode="after")
    def _nothing_is_lost(self) -> Counts:
        if self.rows_in != self.rows_kept + sum(self.dropped.values()):
            raise ValueError(f"{self.rows_in} rows in, but {self.rows_kept} kept and {self.dropped} dropped")
        return self


class FunnelStage(Counts):
    """One line of the funnel: what a stage kept and dropped."""

    stage: str


class OutputFile(BaseModel):
    """One file that a stage wrote."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str
    size_bytes: int


class StageRecord(BaseModel):
    """What `stage.json` holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: str
    version: int
    fingerprint: str
    config: dict[str, Any]
    sql: dict[str, str]
    inputs: dict[str, str]
    counts: Counts
    outputs: dict[str, OutputFile]
    seconds: float

    @property
    def digest(self) -> str:
        """Identity of the content written, whatever folder it lies in."""
        return _sha256_json({name: file.sha256 for name, file in self.outputs.items()})


@dataclass(frozen=True)
class StageResult:
    """A finished stage, and whether it had been finished before."""

    out: UPath
    record: StageRecord
    was_done: bool

    @property
    def counts(self) -> Counts:
        return self.record.counts


def _none_known(_: Path) -> dict[str, OutputFile]:
    return {}


@dataclass(frozen=True)
class Stage(Generic[ConfigT]):
    """A named piece of work from files to files.

    `work(sources, out, config)` reads `sources` (files, or folders of earlier stages), writes into the empty local folder `out`
    and returns its counts. `sql` names the SQL files whose text the output depends on; `version` is raised when the
    Python code changes what it writes. `known(out)` tells checksums that the work took while it wrote, of files too large to
    be read again for theirs.
    """

    name: str
    work: Callable[[Sequence[UPath], Path, ConfigT], Counts]
    sql: tuple[str, ...] = ()
    version: int = 1
    known: Callable[[Path], dict[str, OutputFile]] = _none_known

    def run(self, sources: Sequence[UPath], out: UPath, config: ConfigT) -> StageResult:
        """Do the work unless `out` already holds it."""
        inputs = {str(index): input_digest(source) for index, source in enumerate(sources)}
        sql = {name: sql_digest(name) for name in self.sql}
        settings = deciding_settings(config)
        fingerprint = _fingerprint(self.name, self.version, settings, sql, inputs)
        done = read_record(out)
        if done is not None and done.fingerprint == fingerprint and _is_whole(out, done):
            return StageResult(out, done, was_done=True)

        with _empty_scratch(out) as scratch:
            started = time.monotonic()
            counts = self.work(sources, scratch, config)
            record = StageRecord(
                stage=self.name,
                version=self.version,
                fingerprint=fingerprint,
                config=settings,
                sql=sql,
                inputs=inputs,
                counts=counts,
                outputs=describe_files(scratch, self.known(scratch)),
                seconds=round(time.monotonic() - started, 3),
            )
            _publish(scratch, out, record)
        return StageResult(out, record, was_done=False)


def _fingerprint(stage: str, version: int, config: object, sql: object, inputs: object) -> str:
    return _sha256_json({"stage": stage, "version": version, "config": config, "sql": sql, "inputs": inputs})


def changed_record(
    record: StageRecord, inputs: dict[str, str], counts: Counts, outputs: dict[str, OutputFile]
) -> StageRecord:
    """The record that the stage itself would write from other inputs, for work that was brought there another way."""
    fingerprint = _fingerprint(record.stage, record.version, record.config, record.sql, inputs)
    changes = {"fingerprint": fingerprint, "inputs": inputs, "counts": counts, "outputs": outputs}
    return record.model_copy(update=changes)


def deciding_settings(config: BaseModel) -> dict[str, Any]:
    """The settings as JSON values, less those marked `speed_only`, which change how long the work takes but never its answer."""
    settings = config.model_dump(mode="json")
    for name, field in type(config).model_fields.items():
        extra = field.json_schema_extra
        if isinstance(extra, dict) and extra.get("speed_only"):
            del settings[name]
        elif isinstance(value := getattr(config, name), BaseModel):
            settings[name] = deciding_settings(value)
    return settings


def read_record(folder: UPath) -> StageRecord | None:
    """The stage finished in `folder`, or None if there is none."""
    try:
        return StageRecord.model_validate_json((folder / MARKER).read_text())
    except (FileNotFoundError, NotADirectoryError, ValidationError):
        return None  # a marker that cannot be read vouches for nothing


def input_digest(source: UPath) -> str:
    """Identity of an input: what a finished stage wrote, else the bytes of a file.

    Raises InputError if it is neither.
    """
    record = read_record(source)
    if record is not None:
        return record.digest
    try:
        return _sha256_file(source)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise InputError(f"{source}: neither a file nor the folder of a finished stage; check the path") from error


def _is_whole(out: UPath, record: StageRecord) -> bool:
    """Whether all that the stage wrote is still there, in its size: what a person has deleted or cut is made anew."""
    try:
        return all((out / name).stat().st_size == file.size_bytes for name, file in record.outputs.items())
    except FileNotFoundError:
        return False


def total(counts: Iterable[Counts]) -> Counts:
    """The counts of all parts of a stage together."""
    rows_in = rows_kept = 0
    dropped: dict[str, int] = {}
    for part in counts:
        rows_in += part.rows_in
        rows_kept += part.rows_kept
        for reason, rows in part.dropped.items():
            dropped[reason] = dropped.get(reason, 0) + rows
    return Counts(rows_in=rows_in, rows_kept=rows_kept, dropped=dict(sorted(dropped.items())))


def prune_parts(folder: UPath, keep: Iterable[UPath]) -> None:
    """Remove the parts below `folder` that an earlier configuration left and this one does not have."""
    wanted = {part.name for part in keep}
    if not folder.is_dir():
        return
    for entry in folder.iterdir():
        if entry.name.startswith("part-") and entry.name not in wanted:
            _discard(entry)


def is_local(path: UPath) -> bool:
    """Whether a path lies on this machine's file system."""
    return path.protocol in ("", "file", "local")


@contextmanager
def _empty_scratch(out: UPath) -> Iterator[Path]:
    """The folder to work in; beside `out`, it stays until it is published or the stage is run again."""
    if not is_local(out):
        with scratch_folder("stage") as folder:
            yield Path(folder)
        return
    scratch = Path(out.path).absolute().with_name(f".{out.name}.partial")
    if scratch.exists():
        shutil.rmtree(scratch)  # it bears no marker, and nothing trusts its name
    scratch.mkdir(parents=True)
    yield scratch


def _publish(scratch: Path, out: UPath, record: StageRecord) -> None:
    """Give the scratch folder its name. A reader sees the old stage, none, or the whole new one."""
    marker = record.model_dump_json(indent=2)
    _discard(out)
    if is_local(out):
        (scratch / MARKER).write_text(marker)
        scratch.rename(Path(out.path).absolute())
        return
    # An object store has no rename: the marker comes last.
    for path in _files_below(scratch):
        target = out / str(path.relative_to(scratch))
        target.parent.mkdir(parents=True, exist_ok=True)
        target.fs.put_file(str(path), target.path)
    (out / MARKER).write_text(marker)


def _discard(folder: UPath) -> None:
    """Remove what a stage wrote, its marker first: killed in between, no marker vouches for half of it."""
    if not folder.exists():
        return
    (folder / MARKER).unlink(missing_ok=True)
    folder.fs.rm(folder.path, recursive=True)


def replace_file(new: Path, target: UPath) -> None:
    """Put a local file in the place of `target`, which at any instant is the old one or the whole new one."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if is_local(target):
        partial = Path(target.path).with_name(f".{target.name}.partial")
        shutil.copyfile(new, partial)
        partial.replace(target.path)
    else:
        target.fs.put_file(str(new), target.path)


def describe_files(folder: Path, known: Mapping[str, OutputFile] | None = None) -> dict[str, OutputFile]:
    """All files below a folder, by their path in it; those that are not `known` are read."""
    known = known or {}
    names = [str(path.relative_to(folder)) for path in _files_below(folder)]
    return {name: known[name] if name in known else _describe(folder / name) for name in names}


def _files_below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _describe(path: Path) -> OutputFile:
    return OutputFile(sha256=_sha256_file(UPath(path)), size_bytes=path.stat().st_size)


def _sha256_file(path: UPath) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _sha256_json(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
