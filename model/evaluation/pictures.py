"""Images as text: small JPEGs that live inside the page."""

from __future__ import annotations

import base64
import io

from PIL import Image

from model.data.images import decode
from model.evaluation.images import StoredImage

SIDE_PX = 176
JPEG_QUALITY = 82


def data_uri(image: StoredImage) -> str:
    """A thumbnail, `SIDE_PX` at most on its longer side and never enlarged."""
    picture = Image.fromarray(decode(image.read()))
    picture.thumbnail((SIDE_PX, SIDE_PX), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=JPEG_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
