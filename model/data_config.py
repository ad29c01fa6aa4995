"""How a run gets at its data: how it is decoded. No torch here."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

class DataConfig(BaseModel):
    """Frozen and complete, as all settings are; an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    decoding: Literal["exact", "scaled"] = Field(
        "exact",
        description="scaled = stored images at least twice as large as the model's input are decoded at half of their size or "
        "less: about twice as fast, slightly other pixels",
    )
