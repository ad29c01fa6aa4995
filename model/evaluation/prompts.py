"""Prompts as a model sees them: their tokens, their features, and the classes that it cannot tell apart by them.

Axes: C classes, T templates, D dimensions of the shared space, N texts, L tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from model.evaluation.embed import Embedder, Say
from model.evaluation.sets import NamedClasses

GROUPS_SHOWN = 5
NAME_SHOWN = 40


def warn_of_equal_classes(found: NamedClasses, embedder: Embedder, say: Say) -> None:
    """Say which classes the model cannot tell apart, because all their prompts come to the same tokens."""
    prompts_CT = [found.prompts(label) for label in range(len(found.class_names))]
    identity = token_identity(embedder, [prompt for prompts_T in prompts_CT for prompt in prompts_T])
    lines: dict[tuple[bytes, ...], list[int]] = {}
    for line, prompts_T in enumerate(prompts_CT, 1):
        lines.setdefault(tuple(identity[prompt] for prompt in prompts_T), []).append(line)
    equal = [same for same in lines.values() if len(same) > 1]
    if equal:
        shown = "; ".join(
            f"{found.class_names[same[0] - 1][:NAME_SHOWN]!r} (lines {', '.join(map(str, same[:GROUPS_SHOWN]))})"
            for same in equal[:GROUPS_SHOWN]
        )
        say(
            f"warning: {found.name}: {sum(map(len, equal))} of {len(prompts_CT)} classes have the same prompts as another, "
            "once lower-cased and cut to the model's context length, so the model cannot tell them apart; give them other "
            f"names in classnames.txt: {shown}"
        )


def prompt_features(embedder: Embedder, found: NamedClasses) -> Tensor:
    """Features (C, T, D) of every class name in every template, unnormalised; all go through the tower together."""
    return embedder.texts(prompts_of(found)).view(len(found.class_names), len(found.templates), -1)


def prompts_of(found: NamedClasses) -> list[str]:
    """Every class name in every template, class by class."""
    return [prompt for label in range(len(found.class_names)) for prompt in found.prompts(label)]


def token_identity(embedder: Embedder, texts: Sequence[str]) -> dict[str, bytes]:
    """What the model sees of each text: two texts of the same tokens are one to it."""
    distinct = list(dict.fromkeys(texts))
    tokens_NL = embedder.tokenizer.encode(distinct).numpy()
    return {text: row.tobytes() for text, row in zip(distinct, tokens_NL, strict=True)}
