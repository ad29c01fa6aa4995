"""`croissant.json`: the shards described in Croissant 1.1, which data-set searches and mlcroissant read.

https://docs.mlcommons.org/croissant/docs/croissant-spec-1.1.html, and the fields of responsible AI,
https://docs.mlcommons.org/croissant/docs/croissant-rai-spec.html. All of it follows from the manifest; who publishes the data
set adds `url`, `creator` and `datePublished`, which the manifest cannot know.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

CROISSANT_FILE = "croissant.json"
LICENCE = "URLs and captions; the images belong to their owners and keep their licences."
CONFORMS_TO = ("http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0")
# As the specification gives it, appendix 1.
CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "arrayShape": "cr:arrayShape",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "description": {"@container": "@language"},
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isArray": "cr:isArray",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "name": {"@container": "@language"},
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
# The columns of samples.parquet that are told as fields, beside key and image.
COLUMNS = {
    "caption": ("sc:Text", "Words that the web set beside the image."),
    "url": ("sc:URL", "Address of the image."),
    "page_url": ("sc:URL", "Address of the page it stood on."),
    "text_key": ("sc:Text", "Where the caption stood: alt, title, figcaption or list."),
    "pair_id": ("sc:Text", "Identity of the pair: 128 bits of sha256 over normalised URL and caption."),
    "sha256": ("sc:Text", "Checksum of the image as it was on the web."),
    "width_px": ("sc:Integer", "Width of the image as stored, in pixels."),
    "height_px": ("sc:Integer", "Height of the image as stored, in pixels."),
}

Json = dict[str, Any]


def write_croissant(folder: Path, manifest: Mapping[str, Any], samples_file: str) -> None:
    """Write `croissant.json` beside the files of `folder`, which holds `samples_file` of each split of the manifest."""
    files = []
    for split in manifest["splits"]:
        name = f"{split}/{samples_file}"
        with (folder / name).open("rb") as opened:
            sha256 = hashlib.file_digest(opened, "sha256").hexdigest()
        files.append(_file(name, "application/x-parquet", (folder / name).stat().st_size, sha256))
    text = json.dumps(_described(manifest, files), sort_keys=True, indent=2, ensure_ascii=False) + "\n"
    (folder / CROISSANT_FILE).write_text(text, encoding="utf-8")


def _described(manifest: Mapping[str, Any], samples: Sequence[Json]) -> Json:
    config, splits = manifest["config"], manifest["splits"]
    counts = ", ".join(f"{entry['samples']:,} {split}" for split, entry in splits.items())
    tars = [
        _file(shard["file"], "application/x-tar", shard["size_bytes"], shard["sha256"])
        for entry in splits.values()
        for shard in entry["shards"]
    ]
    # An empty tar has no image to look for.
    full = {split: [shard["file"] for shard in entry["shards"] if shard["samples"]] for split, entry in splits.items()}
    described = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": list(CONFORMS_TO),
        "name": manifest["name"],
        "description": f"Images with captions from the web, as WebDataset shards: {counts}.",
        "version": f"{manifest['format_version']}.0.0+{manifest['digest'][:16]}",
        "license": LICENCE,
        "citeAs": "Radford et al., Learning Transferable Visual Models From Natural Language Supervision, arXiv 2103.00020",
        "keywords": ["image-text", "webdataset"],
        "inLanguage": config["curate"]["languages"],
        "distribution": [*tars, *samples, *(_images(split, files) for split, files in full.items() if files)],
        "recordSet": [
            _records(split, file["@id"]) for (split, files), file in zip(full.items(), samples, strict=True) if files
        ],
    }
    return described | {f"rai:{name}": value for name, value in _responsible(manifest, config).items()}


def _file(name: str, encoding: str, size_bytes: int, sha256: str) -> Json:
    return {
        "@type": "cr:FileObject",
        "@id": name,
        "name": name,
        "contentUrl": name,
        "contentSize": f"{size_bytes} B",
        "encodingFormat": encoding,
        "sha256": sha256,
    }


def _images(split: str, tars: Sequence[str]) -> Json:
    return {
        "@type": "cr:FileSet",
        "@id": f"{split}-images",
        "name": f"{split}-images",
        "description": f"The images of the {split} split.",
        "containedIn": [{"@id": tar} for tar in tars],
        "encodingFormat": "image/jpeg",
        "includes": "*.jpg",
    }


def _records(split: str, samples: str) -> Json:
    """One record per sample. The key, a file's name in the tars and a column of samples.parquet, joins the two."""
    images = {"@id": f"{split}-images"}
    key = _field(
        f"{split}/key",
        "sc:Text",
        "The sample's number within its split.",
        {"fileSet": images, "extract": {"fileProperty": "filename"}, "transform": {"regex": r"^(\d+)"}},
    )
    key["references"] = {"fileObject": {"@id": samples}, "extract": {"column": "key"}}
    image = {"fileSet": images, "extract": {"fileProperty": "content"}}
    columns = [
        _field(f"{split}/{name}", kind, told, {"fileObject": {"@id": samples}, "extract": {"column": name}})
        for name, (kind, told) in COLUMNS.items()
    ]
    return {
        "@type": "cr:RecordSet",
        "@id": split,
        "name": split,
        "description": f"The samples of the {split} split.",
        "key": {"@id": f"{split}/key"},
        "field": [key, _field(f"{split}/image", "sc:ImageObject", "The image, a JPEG.", image), *columns],
    }


def _field(name: str, kind: str, description: str, source: Json) -> Json:
    return {
        "@type": "cr:Field",
        "@id": name,
        "name": name,
        "description": description,
        "dataType": kind,
        "source": source,
    }


def _responsible(manifest: Mapping[str, Any], config: Json) -> Json:
    """The fields of responsible AI that follow from the configuration and the funnel."""
    curate, download, images = config["curate"], config["download"], config["images"]
    funnel = [
        f"{stage['stage'].replace('_', ' ')}: {stage['rows_kept']:,} of {stage['rows_in']:,} rows kept"
        + "".join(f"; {rows:,} dropped as {reason}" for reason, rows in stage["dropped"].items())
        for stage in manifest["funnel"]
    ]
    stored = (
        f"Images are stored as JPEG of quality {download['jpeg_quality']}, their short side {download['short_side_px']} pixels "
        "at most, without what was embedded in the files."
    )
    masked = (
        "E-mail addresses, phone, card and IP numbers that patterns recognise are masked in captions."
        if curate["mask_pii"]
        else "Personal data in captions was not masked."
    )
    opted_out = "pages and files that opt out were left out" if curate["obey_opt_out"] else "opt-outs were not obeyed"
    return {
        "dataCollection": "Image addresses and the texts beside them were collected from the web, source "
        f"{config['source']['kind'].replace('_', ' ')}; {opted_out}. The images were then downloaded.",
        "dataCollectionType": ["Web Scraping"],
        "dataCollectionRawData": "An image's address, the page it stood on, and the text beside it.",
        "dataCollectionMissingData": "An image that could not be fetched or decoded is left out and counted by reason.",
        "dataPreprocessingProtocol": [*funnel, stored],
        "dataBiases": "The web's, and those of the rules: what is said to be in an image is what somebody wrote beside it. "
        "Languages, places and people are represented unevenly.",
        "dataLimitations": "Captions were not checked by a person; some do not describe their image. "
        f"Images near {len(images['evaluation_sets'])} evaluation sets were looked for and removed.",
        "dataUseCases": "Research on models of images and text, such as contrastive pre-training. Not for recognising "
        "persons.",
        "dataSocialImpact": "A model that learns from it may repeat what is offensive or false in it; test before use.",
        "personalSensitiveInformation": [masked, "Images may show persons; faces are not removed."],
        "dataReleaseMaintenancePlan": "Pairs are taken down on request by address, host, checksum or pair_id; so far "
        f"{manifest['taken_down']:,} samples. The version names the content.",
    }
