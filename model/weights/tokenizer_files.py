"""A tokenizer as files of Hugging Face's."""

from __future__ import annotations

import json
from pathlib import Path

from model.clip_vocabulary import END, START, WORD_END, for_hugging_face
from model.tokenizer import Tokenizer


def write(folder: Path, tokenizer: Tokenizer) -> None:
    """Write what AutoTokenizer and CLIPProcessor read; the official cleaning becomes Hugging Face's, which cannot repair text."""
    backend = for_hugging_face(tokenizer.backend) if tokenizer.cleans_as_official else tokenizer.backend
    backend.save(str(folder / "tokenizer.json"))
    model = json.loads(backend.to_str())["model"]
    is_clips = model["end_of_word_suffix"] == WORD_END
    (folder / "vocab.json").write_text(json.dumps(model["vocab"], ensure_ascii=False), encoding="utf-8")
    merges = "\n".join(" ".join(pair) for pair in model["merges"])
    (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}\n", encoding="utf-8")
    described = {
        "tokenizer_class": "CLIPTokenizer" if is_clips else "PreTrainedTokenizerFast",
        "processor_class": "CLIPProcessor",
        "bos_token": START,
        "eos_token": END,
        "unk_token": END,
        "pad_token": END,
        "model_max_length": tokenizer.context_length,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(described, indent=2), encoding="utf-8")
