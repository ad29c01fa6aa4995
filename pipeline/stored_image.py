"""An image as it is stored: upright, shrunk to a short side, three channels or grey, JPEG. The same pixels as img2dataset's."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pipeline.fetch_error import FetchError
from pipeline.upright import upright

PIXEL_LIMIT_MARK = "CV_IO_MAX_IMAGE_"  # in OpenCV's error; OPENCV_IO_MAX_IMAGE_PIXELS of the environment sets the limit


class StoredImage(NamedTuple):
    """A JPEG, its size, and that of the picture it was made of."""

    jpeg: bytes
    width_px: int
    height_px: int
    original_width_px: int
    original_height_px: int


def shrink(body: bytes, short_side_px: int, jpeg_quality: int) -> StoredImage:
    """The picture in `body`, never enlarged; what is transparent lies on white.

    Raises FetchError if it is none, or has more pixels than OpenCV may decode.
    """
    import cv2  # for the process that decodes alone

    try:
        pixels = cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_UNCHANGED)
        if pixels is None:
            raise FetchError("not_an_image", "Image decoding error")
        pixels = upright(pixels, body)
        if pixels.ndim == 3 and pixels.shape[-1] == 4:
            alpha_HW1 = pixels[:, :, 3, np.newaxis]
            blended_HW3 = alpha_HW1 / 255 * pixels[..., :3] + 255 - alpha_HW1
            pixels = np.rint(blended_HW3.clip(min=0, max=255)).astype(np.uint8)
        height_px, width_px = pixels.shape[:2]
        short_px = min(height_px, width_px)
        if short_px > short_side_px:
            scale = short_side_px / short_px
            size = (max(1, round(width_px * scale)), max(1, round(height_px * scale)))
            pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
        _, jpeg = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, jpeg_quality])
    except cv2.error as error:
        reason = "too_many_pixels" if PIXEL_LIMIT_MARK in str(error) else "not_an_image"
        raise FetchError(reason, str(error).strip()) from error
    return StoredImage(jpeg.tobytes(), pixels.shape[1], pixels.shape[0], width_px, height_px)
