"""Sets as people bring them: cells without a label, links to nowhere, damaged files, names that are no text, hostile images."""

from __future__ import annotations

import io
import json
import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from evaluation_inputs import COLOURS, picture, write_config, write_run, write_set, write_shards, write_tar
from PIL import Image

from model.errors import InputError
from model.evaluation.__main__ import main
from model.evaluation.images import UnreadableError, pixels
from model.evaluation.locate import read_sets
from model.evaluation.names import TEMPLATES
from model.evaluation.sets import read_set
from model.files import write_text

COLUMNS = {"path": ["0.jpg", "1.jpg"], "label": ["red", "blue"]}


def write_table(folder: Path, columns: dict[str, list[object]]) -> Path:
    folder.mkdir(exist_ok=True)
    for name in ("0.jpg", "1.jpg"):
        (folder / name).write_bytes(picture("red", int(name[0])))
    pq.write_table(pa.table(columns), folder / "test.parquet")
    return folder


def write_folders(folder: Path, per_class: int = 2) -> Path:
    for label, name in enumerate(COLOURS):
        (folder / "test" / name).mkdir(parents=True)
        for number in range(per_class):
            (folder / "test" / name / f"{number}.jpg").write_bytes(picture(name, 10 * label + number))
    return folder


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({**COLUMNS, "label": ["red", None]}, r"test.parquet row 2: no label; .* remove the row"),
        ({**COLUMNS, "label": [" ", "blue"]}, r"test.parquet row 1: no label"),
        ({**COLUMNS, "label": [["red"], ["blue"]]}, r"test.parquet row 1: the label is a list; .* column labels"),
        ({**COLUMNS, "path": [None, "1.jpg"]}, r"test.parquet row 1: no path"),
        ({"path": [None, "1.jpg"], "labels": ["red", "blue"]}, r"test.parquet row 1: no path"),
        ({"path": ["0.jpg", "1.jpg"], "class": ["red", "blue"]}, r"no column label; .* and it has path, class"),
    ],
)
def test_cells_that_tell_nothing(tmp_path: Path, columns: dict[str, list[object]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_sets([write_table(tmp_path / "table", columns)])


def test_a_row_of_csv_that_ends_early(tmp_path: Path) -> None:
    folder = write_table(tmp_path / "table", {**COLUMNS})
    (folder / "test.parquet").unlink()
    (folder / "test.csv").write_text("path,label\n0.jpg,red\n1.jpg\n")
    with pytest.raises(InputError, match=r"test.csv row 2: no label"):
        read_set(folder)


def broken_link(folder: Path) -> None:
    (folder / "test/red/x.jpg").symlink_to("/nowhere/x.jpg")


def name_that_is_no_text(folder: Path) -> None:
    Path(os.fsdecode(os.fsencode(folder / "test/red") + b"/\xff.jpg")).write_bytes(picture("red", 1))


def one_class(folder: Path) -> None:
    for name in list(COLOURS)[1:]:
        (folder / "test" / name).rename(folder / name)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (broken_link, "test/red/x.jpg: no file, or a link to none"),
        (name_that_is_no_text, "is not UTF-8; rename the file or folder"),
        (one_class, "its one class is 'red'"),
        (lambda folder: (folder / "dataset_type.txt").write_bytes(b"\xff"), "dataset_type.txt: '�' cannot be measured"),
        (lambda folder: (folder / TEMPLATES).mkdir(), "templates.txt: cannot be read (Is a directory)"),
        (lambda folder: (folder / "test.csv").write_text(f"path,label\n{'a' * 300}.jpg,red\n"), "File name too long"),
    ],
)  # fmt: skip
def test_a_broken_set_is_skipped_and_the_others_are_read(
    tmp_path: Path, damage: Callable[[Path], object], reason: str
) -> None:
    whole, broken = write_folders(tmp_path / "whole"), write_folders(tmp_path / "broken")
    damage(broken)
    found = read_sets([broken, whole])
    assert list(found.digests) == ["whole"]
    assert [skipped.name for skipped in found.skipped] == ["broken"]
    assert reason in found.skipped[0].reason


def test_a_folder_that_is_named_like_an_image_is_none(tmp_path: Path) -> None:
    folder = write_folders(tmp_path / "set")
    (folder / "test/red/folder.jpg").mkdir()
    assert len(read_set(folder).samples) == 8


def test_damaged_pages_of_a_table_name_it(tmp_path: Path) -> None:
    folder = write_table(tmp_path / "table", {**COLUMNS})
    content = bytearray((folder / "test.parquet").read_bytes())
    content[20:22] = bytes(byte ^ 0xFF for byte in content[20:22])
    (folder / "test.parquet").write_bytes(content)
    with pytest.raises(InputError, match=r"test.parquet: no Parquet file"):
        read_set(folder)


def test_any_number_of_tars_is_told_at_once(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set")
    (folder / "test/nshards.txt").write_text("99999999999")
    with pytest.raises(InputError, match=r"2.tar: no such file, but .* says 99999999999 tars"):
        read_set(folder)


@pytest.mark.parametrize(
    ("ending", "stored", "message"),
    [
        ("npy", b"", r"labels that cannot be read \(.npy"),
        ("json", b"3", r"key '0' has no list of labels in its .json; write"),
        ("cls", b"0 7", r"has 2 marks in its .cls, one of them 7"),
    ],
)
def test_labels_of_tars_that_are_none(tmp_path: Path, ending: str, stored: bytes, message: str) -> None:
    folder = write_set(tmp_path / "set", [[("0.jpg", picture("red", 0)), (f"0.{ending}", stored)]], ("red", "blue"))
    (folder / "dataset_type.txt").write_text("multilabel")
    with pytest.raises(InputError, match=message) as raised:
        read_sets([folder])
    assert "cannot be read" not in str(raised.value) or ending == "npy"


def test_captions_that_are_no_text(tmp_path: Path) -> None:
    write_tar(tmp_path / "set/test/0.tar", [("0.jpg", picture("red", 0)), ("0.txt", b"caf\xe9")])
    (tmp_path / "set/test/nshards.txt").write_text("1")
    (tmp_path / "set/dataset_type.txt").write_text("retrieval")
    with pytest.raises(InputError, match=r"0.tar: key '0' has captions that are not UTF-8"):
        read_sets([tmp_path / "set"])


@pytest.mark.parametrize("make", ["CocoCaptions", "VisionDataset"])
def test_a_data_set_of_torchvision_without_classes(tmp_path: Path, make: str) -> None:
    fields = ', annFile = "captions.json"' if make == "CocoCaptions" else ""
    (tmp_path / "torchvision.toml").write_text(f'class = "{make}"\ntest = {{ root = "."{fields} }}')
    (tmp_path / "classnames.txt").write_text("a\nb\n")
    with pytest.raises(InputError, match=r"torchvision (cannot read|tells no class of each image)"):
        read_set(tmp_path)


def test_a_damaged_data_set_of_torchvision(tmp_path: Path) -> None:
    (tmp_path / "torchvision.toml").write_text('class = "MNIST"\ntest = { train = false }')
    raw = tmp_path / "MNIST/raw"
    raw.mkdir(parents=True)
    for kind in ("train", "t10k"):
        (raw / f"{kind}-images-idx3-ubyte").write_bytes(b"\0\0")
        (raw / f"{kind}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, 1) + b"\1")
    with pytest.raises(InputError, match=r"torchvision cannot read MNIST there \(.+\); fetch it"):
        read_set(tmp_path)


def test_a_place_that_cannot_be_written_to_is_no_full_disk(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="make that a place to write to, or name another, then run the same"):
        write_text(tmp_path / "file/report.md", "")


def stored(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_grey_of_16_bits_is_not_cut_off_at_255(kind: str) -> None:
    grey = np.linspace(0, 65_535, 32, dtype=np.uint16)[None].repeat(32, axis=0)
    seen = pixels(stored(Image.fromarray(grey), kind), 32)
    assert (seen == (grey >> 8)[..., None]).all()


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_pixels_of_which_white_is_not_known_are_not_guessed(dtype: type) -> None:
    with pytest.raises(UnreadableError, match="32 bits"):
        pixels(stored(Image.fromarray(np.zeros((8, 8), dtype)), "TIFF"), 8)


def test_a_jpeg_that_asks_for_gigabytes_is_refused_by_its_header() -> None:
    image = bytearray(picture("red", 0))
    start = image.find(b"\xff\xc0")
    image[start + 5 : start + 9] = struct.pack(">HH", 65_000, 65_000)
    with pytest.raises(UnreadableError, match="65000 x 65000 pixels, more than"):
        pixels(bytes(image), 32)


def test_what_is_lost_is_told_and_the_rest_of_the_suite_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # The one image of its second class cannot be read: there is no roc_auc then, and it is no reason to lose the other set.
    colours = ("red", "blue")
    lost = [(f"{number}.jpg", picture("red", number)) for number in range(119)]
    lost.append(("119.jpg", b""))
    lost += [(f"{number}.cls", b"01"[number == 119 :][:1]) for number in range(120)]
    auc, other = write_set(tmp_path / "auc", [lost], colours), write_set(tmp_path / "other", [lost], colours)
    (auc / "metric.txt").write_text("roc_auc")
    run = write_run(tmp_path / "run")
    shards = write_shards(tmp_path / "shards", [["a red thing"]] * 4)
    out = write_config(tmp_path / "out", [auc, other], batch=64)
    assert main([str(out), "--run", str(run), "--shards", str(shards)]) == 0
    told = capsys.readouterr().out
    assert "auc skipped: auc: the images that can be read show one class, and roc_auc needs both" in told
    assert "other: 1 of 120 images cannot be read and are left out, the first is 0.tar/119" in told
    assert json.loads((out / "results/other.json").read_text())["images"] == 119
    assert not (out / "results/auc.json").exists() and not (out / "done.json").exists()
