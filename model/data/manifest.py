"""`manifest.json` of a folder of shards: the promise that docs/shards.md writes down."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Entry(BaseModel):
    """Base of all that a manifest holds; fields that nobody here reads may stand beside."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class ShardEntry(Entry):
    """A tar, its index, how many samples they hold, and the tar's checksum."""

    file: str
    index: str
    samples: int = Field(ge=0)
    sha256: str = Field("", pattern="^([0-9a-f]{64})?$")  # names files of the cache


class SplitEntry(Entry):
    """The shards of one split, in order."""

    samples: int = Field(ge=0)
    shards: tuple[ShardEntry, ...]


class FunnelEntry(Entry):
    """What one stage kept and dropped of the rows that entered it."""

    stage: str
    rows_in: int = Field(ge=0)
    rows_kept: int = Field(ge=0)
    dropped: dict[str, int] = {}


class OverlapEntry(Entry):
    """The evaluation sets that the images were compared with, by name."""

    sets: dict[str, dict[str, int]] = {}


class Manifest(Entry):
    """What a folder of shards says of itself."""

    format_version: Literal[1]
    name: str
    digest: str
    splits: dict[str, SplitEntry]
    config: dict[str, Any] = {}
    funnel: tuple[FunnelEntry, ...] = ()
    tools: dict[str, str] = {}
    evaluation_overlap: OverlapEntry = OverlapEntry()

    def samples(self, split: str) -> int:
        """Samples of a split; 0 where there is none."""
        return self.splits[split].samples if split in self.splits else 0

    def shards(self, split: str) -> tuple[ShardEntry, ...]:
        """Shards of a split; none where there is none."""
        return self.splits[split].shards if split in self.splits else ()
