"""From the configuration of an objective to the objective."""

from __future__ import annotations

from model.config import (
    BagOfWordsConfig,
    BagOfWordsContrastiveConfig,
    CaptioningConfig,
    ContrastiveConfig,
    ConvirtConfig,
    MaskedLmConfig,
    MocoConfig,
    PretrainConfig,
    SigmoidConfig,
    SimclrConfig,
)
from model.objectives.bag_of_words import BagOfWords
from model.objectives.bag_of_words_contrastive import BagOfWordsContrastive
from model.objectives.captioning import Captioning
from model.objectives.contrastive import Contrastive
from model.objectives.convirt import Convirt
from model.objectives.masked_lm import MaskedLm
from model.objectives.objective import Objective
from model.objectives.sigmoid import Sigmoid


def build_objective(config: PretrainConfig) -> Objective:
    """The objective of a run, with its towers, freshly initialised."""
    match config.objective:
        case ContrastiveConfig():
            return Contrastive(config)
        case BagOfWordsContrastiveConfig():
            return BagOfWordsContrastive(config)
        case BagOfWordsConfig():
            return BagOfWords(config)
        case CaptioningConfig() as settings:
            return Captioning(config, settings)
        case MaskedLmConfig() as settings:
            return MaskedLm(config, settings)
        case ConvirtConfig() as settings:
            return Convirt(config, settings)
        case SigmoidConfig() as settings:
            return Sigmoid(config, settings)
        case SimclrConfig() | MocoConfig() as settings:
            return _of_images_alone(config, settings)


def _of_images_alone(config: PretrainConfig, settings: SimclrConfig | MocoConfig) -> Objective:
    # torchvision's transforms, which these need, take seconds to import.
    from model.objectives.moco import Moco
    from model.objectives.simclr import Simclr

    return Simclr(config, settings) if isinstance(settings, SimclrConfig) else Moco(config, settings)
