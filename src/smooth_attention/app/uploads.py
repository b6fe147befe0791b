"""Images that people upload: opened with care."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from smooth_attention.core.errors import DataError
from smooth_attention.data.files import read_image

__all__ = ["read_upload"]

MAX_MEGAPIXELS = 50
MIN_SIDE_PX = 8
FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF")  # none of them runs another program


def read_upload(path: Path) -> np.ndarray:
    """Return an uploaded image as uint8 (H, W, 3) RGB, its EXIF orientation applied.

    Its size is read from the header before a pixel is decoded. Of a file with several images the first counts.

    Raises:
        DataError: where it is gone, above 50 megapixels, below 8 px a side, no image of the known formats, broken, or
            of more than 8 bits a channel.
    """
    known = ", ".join(FORMATS)
    try:
        with Image.open(path, formats=FORMATS) as image:
            width, height = image.size
    except FileNotFoundError as error:  # uploads do not live for ever
        raise DataError(f"{path.name} is no longer here; upload it again") from error
    except Image.DecompressionBombError as error:  # far above the limit here
        raise DataError(f"{path.name} has more than {MAX_MEGAPIXELS} megapixels; make it smaller") from error
    except UnidentifiedImageError as error:
        raise DataError(f"{path.name} is no image that can be read; upload one of {known}") from error
    except (OSError, SyntaxError, ValueError) as error:
        reason = str(error).replace(str(path), path.name)
        raise DataError(f"{path.name} is broken ({reason}); upload one of {known}") from error
    if width * height > MAX_MEGAPIXELS * 10**6:
        raise DataError(
            f"{path.name} has {width} x {height} = {width * height / 1e6:.0f} megapixels, "
            f"at most {MAX_MEGAPIXELS} are taken; make it smaller"
        )
    if min(width, height) < MIN_SIDE_PX:
        raise DataError(
            f"{path.name} is {width} x {height} px; a side of at least {MIN_SIDE_PX} px is needed to look into it"
        )
    try:
        return read_image(path)
    except DataError as error:
        raise DataError(str(error).replace(str(path), path.name)) from error
