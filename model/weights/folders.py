"""Any of the formats -> a run, and a run -> any of the formats."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from model.checkpoint import CONFIG, TOKENIZER, Run, load_run, save_final
from model.clip import CLIP
from model.clip_vocabulary import hugging_face_backend
from model.config import PretrainConfig
from model.errors import InputError
from model.files import write_text, writing
from model.tokenizer import CLIPS_OWN, Tokenizer
from model.weights import hugging_face, open_clip, openai, tokenizer_files
from model.weights.tensors import Weights, in_fp16

Format = Literal["openai", "open_clip", "hugging_face", "onnx"]
Precision = Literal["fp32", "fp16"]
IMPORTED = "imported"


def import_weights(source: Path, run_dir: Path, dataset: str) -> None:
    """Make a finished run of a model in any of the formats, which is told by its files.

    `dataset` is what evaluations of the run take captions and a validation split from. Raises InputError.
    """
    _require_free(run_dir)
    weights, tokenizer = read_weights(source)
    made_of = CLIPS_OWN if tokenizer.cleans_as_official else str(source)
    try:
        config = PretrainConfig(name=run_dir.name, dataset=dataset, tokenizer=made_of, model=weights.config)
    except ValidationError as error:
        raise InputError(f"{run_dir}: {error.errors()[0]['msg']}; choose another name") from error
    model = CLIP(weights.config)
    model.load_state_dict(weights.tensors)
    with writing(run_dir):
        run_dir.mkdir(parents=True, exist_ok=True)
    write_text(run_dir / CONFIG, config.model_dump_json(indent=2))
    write_text(run_dir / TOKENIZER, tokenizer.to_json())
    save_final(run_dir, model, steps=0, samples_seen=0, loss=None, run_fingerprint=IMPORTED)


def export_weights(run_dir: Path, folder: Path, to: Format, precision: Precision) -> None:
    """Write the model of a run in another format, into a new folder. Raises InputError for what the format cannot say."""
    _require_free(folder)
    run = load_run(run_dir)
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    with writing(folder):
        partial.mkdir(parents=True)
        try:
            _write(partial, run, to, precision, folder.name)
            if folder.is_dir():
                folder.rmdir()
            partial.rename(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def read_weights(source: Path) -> tuple[Weights, Tokenizer]:
    """A model in any of the formats, and its tokenizer. Raises InputError."""
    weights, tokenizer = _read(source)
    if tokenizer.vocab_size > weights.config.text.vocab_size:
        raise InputError(
            f"{source}: the model has {weights.config.text.vocab_size:,} token embeddings, its tokenizer "
            f"{tokenizer.vocab_size:,} entries; put the tokenizer.json it was trained with beside it"
        )
    return weights, tokenizer


def _require_free(folder: Path) -> None:
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise InputError(f"{folder} is there already; choose another one, or remove it")


def _read(source: Path) -> tuple[Weights, Tokenizer]:
    if (source / open_clip.CONFIG).is_file():
        weights, own_tokenizer = open_clip.read(source)
        context_length = weights.config.text.context_length
        if own_tokenizer:  # open_clip repairs texts before such a tokenizer sees them
            return weights, Tokenizer(hugging_face_backend(source), context_length, cleans_as_official=True)
        return weights, Tokenizer.ready_made(CLIPS_OWN, context_length)
    if (source / hugging_face.CONFIG).is_file():
        return hugging_face.read(source)
    path = source if source.is_file() else source / openai.FILE
    if not path.is_file():
        raise InputError(
            f"{source}: neither {open_clip.CONFIG} nor {hugging_face.CONFIG} nor {openai.FILE}, and not a file of a state "
            "dict; name a model in the format of open_clip, Hugging Face or OpenAI"
        )
    weights = openai.read(path)
    beside, context_length = path.with_name(TOKENIZER), weights.config.text.context_length
    if beside.is_file():
        return weights, Tokenizer.load(beside, context_length)
    return weights, Tokenizer.ready_made(CLIPS_OWN, context_length)


def _write(folder: Path, run: Run, to: Format, precision: Precision, name: str) -> None:
    if to == "onnx":
        from model.weights import onnx_files  # needs the extra `export`

        if precision != "fp32":
            raise InputError("ONNX is written in fp32 only; leave --dtype out")
        onnx_files.write(folder, run)
        return
    weights = Weights(run.config.model, run.model.state_dict())
    tensors = in_fp16(weights) if precision == "fp16" else weights.tensors
    if to == "openai":
        openai.write(folder, weights, tensors)
        (folder / TOKENIZER).write_text(run.tokenizer.to_json(), encoding="utf-8")
    elif to == "open_clip":
        is_official = run.tokenizer.cleans_as_official
        open_clip.write(folder, weights, tensors, None if is_official else name)
        if not is_official:
            tokenizer_files.write(folder, run.tokenizer)
    else:
        hugging_face.write(folder, weights, tensors, run.tokenizer)
        tokenizer_files.write(folder, run.tokenizer)
