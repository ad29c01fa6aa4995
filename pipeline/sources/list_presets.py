"""Published lists of URL-caption pairs by name: how their columns are called, for the source `url_list`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline.sources.config import UrlListConfig

PRESETS: dict[str, dict[str, Any]] = {
    # Sharma et al. 2018: Train_GCC-training.tsv, two columns without a header.
    "cc3m": {"format": "tsv", "column_names": ("caption", "url"), "url_column": "url", "caption_column": "caption"},
    # Changpinyo et al. 2021, arXiv 2102.08981: cc12m.tsv, the other way round.
    "cc12m": {"format": "tsv", "column_names": ("url", "caption"), "url_column": "url", "caption_column": "caption"},
    # Schuhmann et al. 2021 and 2022, arXiv 2111.02114 and 2210.08402: Parquet.
    "laion": {"format": "parquet", "url_column": "URL", "caption_column": "TEXT"},
    # Gadre et al. 2023, arXiv 2304.14108: Parquet.
    "datacomp": {"format": "parquet", "url_column": "url", "caption_column": "text"},
    # Byeon et al. 2022, kakaobrain/coyo-dataset: Parquet.
    "coyo": {"format": "parquet", "url_column": "url", "caption_column": "text"},
}


def list_preset(name: str, paths: Sequence[str]) -> UrlListConfig:
    """The configuration that reads files of the published list `name`. Raises ValueError if no preset has that name."""
    if name not in PRESETS:
        raise ValueError(f"no list is called {name!r}; there are {', '.join(PRESETS)}")
    return UrlListConfig(paths=tuple(paths), **PRESETS[name])
