"""The doors to Parquet leave pandas out."""

from __future__ import annotations

import subprocess
import sys

import pytest
from conftest import CHECKOUT

USED = "import pyarrow as pa; table = pa.table({'a': [1, 2]})"


@pytest.mark.parametrize("door", ["pipeline.parquet", "pipeline.native_fetch", "flows.build_dataset"])
def test_arrow_does_not_import_pandas_unless_it_is_asked_for_a_dataframe(door: str) -> None:
    asked = "before = 'pandas' in sys.modules; print(before, table.to_pandas().shape)"
    program = f"import sys, {door}; {USED}; {asked}"
    told = subprocess.run([sys.executable, "-c", program], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    assert told.stdout == "False (2, 1)\n"
