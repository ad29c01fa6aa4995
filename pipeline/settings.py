"""The base of all settings of the data side."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

USER_AGENT = "webimagetext/0.1 (research crawler; set a contact address in the configuration)"


class Settings(BaseModel):
    """Frozen, complete, and an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
