"""The sentences of the report: what the figures mean, said plainly, and only what they bear out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from model.evaluation.multilabel_results import MultilabelResult
from model.evaluation.results import Calibration, RetrievalResult, SetResult
from model.evaluation.summary import Summary

PAIRS_LISTED = 8


def percent(share: float, digits: int = 1) -> str:
    """0.1234 -> "12.3 %", with a space that does not break."""
    return f"{100 * share:.{digits}f}\u00a0%"


def level(confidence: float) -> str:
    """0.995 -> "99.5 %"."""
    return f"{100 * confidence:.4g}\u00a0%"


def points(difference: float) -> str:
    """A signed difference of shares in points."""
    return f"{100 * difference:+.1f}".replace("-", "\u2212") + "\u00a0points"


def headline(found: SetResult, confidence: float) -> str:
    """Accuracy against chance, and how new the classes are."""
    shown, names = len(found.shown_classes), len(found.classes)
    kinds = f"{shown} kinds, with {names} names to choose from," if shown < names else f"{shown} kinds"
    return (
        f"Shown {found.images:,} images of {kinds} and never one labelled example, the model gives "
        f"{percent(found.top1.value)} of them the right name ({level(confidence)} interval {percent(found.top1.low)} "
        f"to {percent(found.top1.high)}). {_novelty(found)} {verdict(found)}"
    )


def _novelty(found: SetResult) -> str:
    named, shown = found.classes_named_in_training, len(found.shown_classes)
    searched = f"the {found.captions_read:,} training captions that were searched"
    if named == shown:
        return f"All of the {shown} names stand in {searched}."
    if named:
        return f"{named} of the {shown} names stand word for word in {searched}."
    if all(result.words_occur for result in found.shown_classes):
        return (
            f"None of the {shown} names stands in {searched}, only their single words do: the model puts them together."
        )
    return f"None of the {shown} names stands in {searched}."


def verdict(found: SetResult) -> str:
    """Whether the interval clears chance."""
    if found.top1.low > found.chance_top1:
        times = found.top1.value / found.chance_top1
        return f"That is {times:.1f} times chance, and the whole interval lies above it."
    if found.top1.high < found.chance_top1:
        return "That is below chance: something is wrong, look at the confusions below."
    return "The interval holds chance, so nothing is shown to have been learned."


def strength(penalty: float) -> str:
    """133.35 -> "133", 0.0074989 -> "0.0075"."""
    return f"{penalty:,.0f}" if penalty >= 100 else f"{penalty:.2g}"


@dataclass(frozen=True)
class Confused:
    """A pair of classes that are taken for one another."""

    label: str
    predicted: str
    images: int
    share: float


def most_confused(found: SetResult) -> list[Confused]:
    """The pairs with the most mistakes."""
    wrong = sorted((-images, label, predicted) for label, predicted, images in found.confusion if label != predicted)
    return [
        Confused(
            found.classes[label].name,
            found.classes[predicted].name,
            -images,
            -images / max(found.classes[label].images, 1),
        )
        for images, label, predicted in wrong[:PAIRS_LISTED]
    ]


@dataclass(frozen=True)
class Parts:
    """Class names of two words, a grid of first words by second words, and how often each word alone is right."""

    firsts: list[str]
    seconds: list[str]
    first_right: float
    second_right: float


def parts(found: SetResult) -> Parts | None:
    """None unless every class name has two words and both words recur."""
    words = [result.name.split() for result in found.classes]
    if any(len(pair) != 2 for pair in words):
        return None
    firsts, seconds = sorted({first for first, _ in words}), sorted({second for _, second in words})
    if max(len(firsts), len(seconds)) >= len(words) or min(len(firsts), len(seconds)) < 2:
        return None
    first_right = second_right = 0
    for label, predicted, images in found.confusion:
        first_right += images * (words[label][0] == words[predicted][0])
        second_right += images * (words[label][1] == words[predicted][1])
    return Parts(firsts, seconds, first_right / found.images, second_right / found.images)


def parts_sentence(found: SetResult, split: Parts) -> str:
    """Which half of the name is the easier one."""
    return (
        f"Each name has two words. Taken alone, the first word ({_listed(split.firsts)}) is right in "
        f"{percent(split.first_right)} of the images and the second ({_listed(split.seconds)}) in "
        f"{percent(split.second_right)}; both together in {percent(found.top1.value)}."
    )


def ensemble_sentence(found: SetResult) -> str:
    """What the templates are worth."""
    if len(found.templates) == 1:
        return "The set has one template, so there is no ensemble to gain from."
    return (
        f"The ensemble of {len(found.templates)} templates is worth {points(found.ensemble_gain)} over the first one "
        f"alone ({percent(found.first_template_top1.value)}): it mends {found.mended_by_ensemble:,} images and "
        f"breaks {found.broken_by_ensemble:,}."
    )


def learned_sentence(found: SetResult) -> str:
    """What labels add, or why that was not measured."""
    learned = found.learned
    if learned.probe is None or learned.neighbours is None:
        return f"Linear probe, few-shot and neighbours were skipped: {learned.reason}."
    probe = learned.probe
    held = "held out of the training split" if learned.is_val_carved else "of the set's own validation split"
    ended = "" if probe.is_converged else f", which {probe.iterations:,} iterations did not bring to its optimum"
    return (
        f"With labels, a linear classifier on the image tower's {probe.dimensions:,} features reaches "
        f"{percent(probe.metric.value)} in the set's metric ({found.metric.replace('_', ' ')}), against "
        f"{percent(found.metric_share.value)} without any; {learned.neighbours.neighbours} nearest neighbours reach "
        f"{percent(learned.neighbours.metric.value)}. It saw {probe.train_images + probe.val_images:,} images; its penalty of "
        f"{strength(probe.penalty)} was the best on {probe.val_images:,} images {held}{ended}. "
        f"{_calibration_sentence(learned.zero_shot_calibration)}"
    )


def origin_sentence(found: SetResult | MultilabelResult) -> str:
    """Where names and prompts are from, and what to mind when the figures are compared with others'."""
    origin = found.origin
    known = f" {origin.title}: {origin.trap}" if origin.title else ""
    images = found.images + len(found.unreadable)
    if origin.paper_images is not None and origin.paper_images != images:
        known += f" It has {images:,} test images here, {origin.paper_images:,} in the paper: not the same split."
    return f"Class names from {origin.class_names_from}, prompts from {origin.prompts_from}; stored as {origin.stored_as}.{known}"


def _calibration_sentence(found: Calibration | None) -> str:
    if found is None:
        return "The temperature of zero-shot was not fitted, for the model scores texts without features of them."
    return (
        f"Divided by a temperature of {found.temperature:.2f}, the zero-shot logits are {percent(found.error_after)} off in "
        f"their certainty, before it {percent(found.error_before)} (expected calibration error)."
    )


def retrieval_sentence(found: RetrievalResult) -> str:
    """R@1 both ways."""
    if found.status == "skipped":
        return f"Skipped: {found.reason}."
    to_text, to_image = found.image_to_text[0], found.text_to_image[0]
    return (
        f"Among {found.texts:,} texts, the first one chosen for an image is one of its own in "
        f"{percent(to_text.share.value)} of {found.images:,} cases (chance {percent(to_text.chance)}); among the "
        f"images, the first one chosen for a text is right in {percent(to_image.share.value)} (chance "
        f"{percent(to_image.chance)})."
    )


def next_steps(summary: Summary, dropped: dict[str, int]) -> list[tuple[str, str]]:
    """(what, why or how), the most telling first."""
    steps: list[tuple[str, str]] = []
    best = summary.headline
    if best is not None and best.top1.low <= best.chance_top1:
        steps.append(
            (
                "Train longer, or on more pairs.",
                "The interval of the accuracy still holds chance. Look at the loss first: does it fall?",
            )
        )
    for found in summary.sets:
        confused = most_confused(found)
        if confused:
            worst = confused[0]
            steps.append(
                (
                    f"Look at “{worst.label}” taken for “{worst.predicted}” in {found.name}.",
                    f"{worst.images} of the mistakes are this pair ({percent(worst.share, 0)} of its images). "
                    "More captions that tell the two apart, or better class names, mend it.",
                )
            )
            break
    steps += [
        (
            "Reword the prompts.",
            f"In {found.name} the ensemble loses {points(found.ensemble_gain)} against its first template alone.",
        )
        for found in summary.sets
        if found.ensemble_gain < 0
    ]
    if dropped:
        reason, rows = max(dropped.items(), key=lambda item: (item[1], item[0]))
        steps.append(
            (
                f"Check the largest loss on the walk: {reason.replace('_', ' ')}, {rows:,} rows.",
                "Every dropped row keeps its reason: wit why URL tells what became of one.",
            )
        )
    steps.append(
        ("Measure it on your own images.", "Put a folder in the wds layout among evaluation_sets and evaluate again.")
    )
    steps.append(
        (
            "Go larger.",
            "The same three steps take any list of URL and caption pairs: prefect deployment run build-dataset, then "
            "pretrain, then evaluate.",
        )
    )
    return steps


def _listed(words: Sequence[str]) -> str:
    return ", ".join(words) if len(words) <= 4 else ", ".join(words[:3]) + " …"
