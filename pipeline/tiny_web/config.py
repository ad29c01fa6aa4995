"""What decides the tiny web, to the last byte."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class TinyWebConfig(BaseModel):
    """The embedded web and its evaluation sets: the same values give the same bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = Field(0, ge=0, description="Seed of everything drawn")
    pairs: int = Field(6_000, ge=60, description="Image-text pairs that a correct pipeline keeps")
    sites: int = Field(6, ge=3, le=50, description="Web sites, each on a port of its own")
    base_port: int = Field(
        8_700, ge=0, le=65_000, description="Port of the first site, the others follow; 0 = free ports"
    )
    drip_s: float = Field(
        20.0, gt=0, description="How long a dripping image drips, in seconds; clients must give up earlier"
    )
    drip_pause_s: float = Field(0.2, gt=0, description="Pause between two bytes of a dripping image, in seconds")
    huge_bytes: int = Field(
        40_000_000, ge=100_000, description="Body of a huge image; above the client's limit, in bytes"
    )
    evaluation_images: int = Field(600, ge=24, description="Images of each of the two evaluation sets")
    evaluation_train_images: int = Field(
        1_152,
        ge=0,
        description="Labelled images of each set's training split, of all 64 classes in turn, for linear and few-shot "
        "probes; the web does not show them; 0 = no such split",
    )
