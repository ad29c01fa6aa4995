"""Two random views of each image, for objectives that learn from images alone.

The augmentations of MoCo v2 (arXiv:2003.04297), which are SimCLR's (arXiv:2002.05709, appendix A) but milder: crop and resize,
jitter of colours, grey, blur, flip. They take their random numbers from the caller, who keys them by (seed, epoch, sample).

Axes: B images, H W the image, K random numbers.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

VIEW_DRAWS = 13
AREA, RATIO = (0.2, 1.0), (3 / 4, 4 / 3)
JITTER, HUE = 0.4, 0.1
JITTER_SHARE, GREY_SHARE, BLUR_SHARE, FLIP_SHARE = 0.8, 0.2, 0.5, 0.5
BLUR_SIGMA = (0.1, 2.0)


def views(image_BHWC: Tensor, draws_BK: Tensor) -> Tensor:
    """One view of each image, uint8 (B, H, W, 3), from VIEW_DRAWS numbers in [0, 1) each."""
    image_BCHW = image_BHWC.permute(0, 3, 1, 2)
    made = [_view(image, draws) for image, draws in zip(image_BCHW, draws_BK.tolist(), strict=True)]
    return torch.stack(made).permute(0, 2, 3, 1)


def _view(image_CHW: Tensor, draws: list[float]) -> Tensor:
    area, ratio, x, y, flip, jitter, brightness, contrast, saturation, hue, grey, blur, sigma = draws
    side = image_CHW.shape[-1]
    share, aspect = _between(AREA, area), math.exp(_between((math.log(RATIO[0]), math.log(RATIO[1])), ratio))
    height = min(side, max(1, round(side * math.sqrt(share / aspect))))
    width = min(side, max(1, round(side * math.sqrt(share * aspect))))
    top, left = int(y * (side - height + 1)), int(x * (side - width + 1))
    view: Tensor = functional.resized_crop(image_CHW, top, left, height, width, [side, side], antialias=True)
    if jitter < JITTER_SHARE:
        factors = (1 - JITTER, 1 + JITTER)
        view = functional.adjust_brightness(view, _between(factors, brightness))
        view = functional.adjust_contrast(view, _between(factors, contrast))
        view = functional.adjust_saturation(view, _between(factors, saturation))
        view = functional.adjust_hue(view, _between((-HUE, HUE), hue))
    if grey < GREY_SHARE:
        view = functional.rgb_to_grayscale(view, num_output_channels=3)
    if blur < BLUR_SHARE:
        kernel = max(3, side // 10 | 1)  # a tenth of the side, odd
        view = functional.gaussian_blur(view, [kernel, kernel], [_between(BLUR_SIGMA, sigma)] * 2)
    return functional.horizontal_flip(view) if flip < FLIP_SHARE else view


def _between(bounds: tuple[float, float], draw: float) -> float:
    return bounds[0] + (bounds[1] - bounds[0]) * draw
