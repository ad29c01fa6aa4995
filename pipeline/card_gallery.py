"""The pictures of a card, within the page itself."""

from __future__ import annotations

import base64
from collections.abc import Sequence

from upath import UPath

from pipeline.card_blocks import Gallery, Section, Thumbnail
from pipeline.pictures import Duplicate, Picture, read_pictures

REASONS = {
    "near_duplicate": ("They look alike", "Perceptual hashes that few bits part; the larger original stays."),
    "duplicate_image": ("The same bytes", "The image stays once, with the captions of all that show it."),
}


def gallery(folder: UPath) -> list[Section]:
    """Sections of what the stage `pictures` chose."""
    pictures = read_pictures(folder)
    samples = [(_thumbnail(folder, picture, ""),) for picture in pictures.samples]
    sections = [
        Section(
            "images",
            "Images of the shards",
            "Chosen by a hash, not for being good, and not looked at by a person.",
            [Gallery("", samples)],
        )
    ]
    if pictures.duplicates:
        sections.append(
            Section(
                "duplicates",
                "Duplicates, side by side",
                "Left the image that stays, right one that was left out for it.",
                [
                    Gallery(title, _sides(folder, reason, pictures.duplicates), note)
                    for reason, (title, note) in REASONS.items()
                    if any(duplicate.reason == reason for duplicate in pictures.duplicates)
                ],
            )
        )
    return sections


def _sides(folder: UPath, reason: str, duplicates: Sequence[Duplicate]) -> list[tuple[Thumbnail, ...]]:
    return [
        (_thumbnail(folder, each.kept, "kept"), _thumbnail(folder, each.dropped, "dropped"))
        for each in duplicates
        if each.reason == reason
    ]


def _thumbnail(folder: UPath, picture: Picture, fate: str) -> Thumbnail:
    image = base64.b64encode((folder / picture.file).read_bytes()).decode()
    remark = " · ".join(filter(None, (fate, picture.host, picture.size)))
    return Thumbnail(f"data:image/jpeg;base64,{image}", picture.caption, remark)
