"""What an evaluation found of each set, as JSON that a person can read and the report is drawn from."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from model.evaluation.intervals import Share
from model.evaluation.metrics import Metric


class Result(BaseModel):
    """Base of all results: frozen, and an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Unreadable(Result):
    """An image that was not measured, and why."""

    key: str
    reason: str


class SkippedSet(Result):
    """A set that was asked for and not measured, and why. It enters no mean."""

    name: str
    reason: str


class Origin(Result):
    """What a set is known as, how it is stored, and where its class names and prompts are from."""

    title: str = ""
    domain: str = ""
    trap: str = ""
    paper_images: int | None = None
    """Test images of the paper's table 9; other sizes mean another split."""
    stored_as: str = ""
    class_names_from: str = ""
    prompts_from: str = ""


class Reference(Result):
    """The paper's figures for a set, in per cent: of its nearest model, and of a linear probe on a ResNet-50 of ImageNet.

    `measured_again` is open_clip's figure for the same weights; `flag` tells how far such figures stray from the paper's:
    firm up to 0.5 points, near up to 2, else loose.
    """

    row: str
    flag: Literal["firm", "near", "loose"]
    model: str
    zero_shot_percent: float | None
    measured_again_percent: float | None
    probe_percent: float | None
    resnet50_probe_percent: float | None


class ClassResult(Result):
    """One class: its images, how many were named right, and what the training captions say of its name."""

    name: str
    images: int
    correct: int
    share: Share
    captions_naming_it: int
    words_occur: bool


class Verdict(Result):
    """What the model said of one image; `probability` is that of the predicted class at the model's temperature."""

    key: str
    label: int
    predicted: int
    probability: float


class Calibration(Result):
    """What to divide the logits by, and the expected calibration error on the tested images before and after."""

    temperature: float
    val_images: int
    error_before: float
    error_after: float


class CertaintyBin(Result):
    """The images whose predicted class has a probability in one bin: their mean of it, and how many were right."""

    images: int
    certainty: float
    accuracy: float


class SweepPoint(Result):
    """A penalty that was tried, and the set's metric on the validation images."""

    penalty: float
    value: float
    iterations: int
    is_converged: bool


class ProbeResult(Result):
    """A linear classifier on the features of the training images; `metric` is the set's own."""

    train_images: int
    val_images: int
    dimensions: int
    penalty: float
    iterations: int
    is_converged: bool
    sweep: list[SweepPoint]
    metric: Share
    top1: Share
    mean_per_class: Share
    calibration: Calibration


class FewShotResult(Result):
    """The set's metric from so many examples of each class, once per seed; `reason` says why there is none."""

    examples: int
    values: list[float] = []
    mean: float | None = None
    deviation: float | None = None
    reason: str = ""


class NeighboursResult(Result):
    """Nearest neighbours among the training and validation images, in the shared space."""

    neighbours: int
    metric: Share
    top1: Share


class LearnedResult(Result):
    """What the labels of a set's training split add; `reason` says why it was skipped."""

    status: Literal["measured", "skipped"]
    reason: str = ""
    is_val_carved: bool = False
    unreadable: list[Unreadable] = []
    probe: ProbeResult | None = None
    few_shot: list[FewShotResult] = []
    neighbours: NeighboursResult | None = None
    zero_shot_calibration: Calibration | None = None


class SetResult(Result):
    """Zero-shot classification of one evaluation set, and what its training split adds; `metric_share` is its own metric's."""

    name: str
    digest: str
    images: int
    unreadable: list[Unreadable]
    templates: list[str]
    metric: Metric
    metric_share: Share
    metric_chance: float
    top1: Share
    top5: Share
    mean_per_class: Share
    chance_top1: float
    chance_top5: float
    largest_class_share: float
    first_template_top1: Share
    mended_by_ensemble: int
    broken_by_ensemble: int
    captions_read: int
    classes: list[ClassResult]
    confusion: list[tuple[int, int, int]]
    origin: Origin = Origin()
    reference: Reference | None = None
    successes: list[Verdict]
    mistakes: list[Verdict]
    certainty: list[CertaintyBin] = []
    learned: LearnedResult

    @property
    def ensemble_gain(self) -> float:
        """Top-1 accuracy of all templates together less that of the first alone."""
        return self.top1.value - self.first_template_top1.value

    @property
    def shown_classes(self) -> list[ClassResult]:
        """The classes that its images show; the others are only there to be chosen wrongly."""
        return [result for result in self.classes if result.images]

    @property
    def classes_named_in_training(self) -> int:
        """How many of the shown classes stand in a training caption."""
        return sum(result.captions_naming_it > 0 for result in self.shown_classes)


class ProbedSet(Result):
    """A set as a model sees it that judges no texts: by its labels alone."""

    name: str
    digest: str
    images: int
    classes: int
    unreadable: list[Unreadable]
    metric: Metric
    metric_chance: float
    origin: Origin
    reference: Reference | None
    learned: LearnedResult


class Recall(Result):
    """The share of queries with a right answer among the first `k`, and what guessing would give."""

    k: int
    share: Share
    chance: float


class Found(Result):
    """One answer: the image's key or the text, its cosine similarity, and whether it is right."""

    answer: str
    similarity: float
    is_hit: bool


class Query(Result):
    """One query and its first answers. `rank` is that of the first right one, from 1; ties count against the model."""

    query: str
    rank: int
    found: list[Found]


class RetrievalReference(Result):
    """The paper's recalls for a set by name (text_R@1: texts are found), which it printed of ViT-L/14@336px alone; and those of
    its model nearest to ours, as open_clip measured the weights again. In per cent.
    """

    paper_percent: dict[str, float]
    model: str
    measured_again_percent: dict[str, float]


class RetrievalResult(Result):
    """Image-text retrieval on the validation split, or on a set of its own; `reason` says why it was skipped."""

    status: Literal["measured", "skipped"]
    name: str = ""
    reason: str = ""
    prompt: str = ""
    reference: RetrievalReference | None = None
    images: int = 0
    texts: int = 0
    unreadable: list[Unreadable] = []
    image_to_text: list[Recall] = []
    text_to_image: list[Recall] = []
    image_queries: list[Query] = []
    text_queries: list[Query] = []
