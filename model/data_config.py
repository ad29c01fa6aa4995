"""How a run gets at its data: what is mixed, how it is decoded, what of remote shards stays near. No torch here."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from model.settings import Settings

NOT_LEARNED = {"mix", "cache_folder", "cache_gb"}
"""What does not decide what is learned, or is told by the digest of the data, as a mix is."""


class DataConfig(Settings):
    """How the samples of a run are read."""

    mix: dict[str, Annotated[float, Field(gt=0)]] = Field(
        {},
        description="Data sets trained on together, by name or path, and their weights: of the samples of an epoch each gives "
        "exactly its weight's share, whatever its size. `dataset` is one of them. Empty = `dataset` alone",
    )
    decoding: Literal["exact", "scaled"] = Field(
        "exact",
        description="scaled = stored images at least twice as large as the model's input are decoded at half of their size or "
        "less: about twice as fast, slightly other pixels",
    )
    cache_folder: str = Field(
        "",
        description="Local folder in which samples of remote shards are kept, for all processes and runs of a machine; "
        "empty = each epoch fetches them again",
    )
    cache_gb: float = Field(
        100.0,
        gt=0,
        description="Most that cache_folder holds, in GB; what was not read for the longest time goes first",
    )
