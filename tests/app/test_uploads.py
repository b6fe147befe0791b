"""Uploaded images: what is taken, what gets which sentence, and that nothing is decoded before it is measured."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from smooth_attention.app.uploads import MAX_MEGAPIXELS, read_upload
from smooth_attention.core.errors import DataError


def png_of_size(width: int, height: int) -> bytes:
    """Return the header of a PNG that claims a size, with next to no data."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0")), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF"])
def test_common_formats_are_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"image.{kind.lower()}"
    Image.new("RGB", (40, 20), (250, 10, 10)).save(path)
    pixels = read_upload(path)
    assert (pixels.shape, pixels.dtype) == ((20, 40, 3), np.uint8)
    assert np.abs(pixels.astype(int) - [250, 10, 10]).max() < 8


def test_orientation_is_applied(tmp_path: Path) -> None:
    path = tmp_path / "turned.jpg"
    image = Image.new("RGB", (40, 20))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(path, exif=exif)
    assert read_upload(path).shape == (40, 20, 3)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "no image that can be read; upload one of PNG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 40\n", "no image that can be read"),
        (b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>", "no image that can be read"),
        (png_of_size(1, 1), "is 1 x 1 px; a side of at least 8 px"),
        (png_of_size(400, 7), "is 400 x 7 px"),
        (png_of_size(10_000, 5_001), rf"10000 x 5001 = 50 megapixels, at most {MAX_MEGAPIXELS}"),
        (png_of_size(60_000, 60_000), "more than 50 megapixels|3600 megapixels"),
        (png_of_size(400, 400), "broken"),
    ],
    ids=["empty", "eps", "svg", "1x1", "thin", "50MPx", "bomb", "truncated"],
)
def test_other_files_get_a_sentence_without_the_servers_folders(tmp_path: Path, content: bytes, sentence: str) -> None:
    path = tmp_path / "file.png"
    path.write_bytes(content)
    with pytest.raises(DataError, match=sentence) as caught:
        read_upload(path)
    assert str(tmp_path) not in str(caught.value)


def test_compressed_text_does_not_fill_the_memory(tmp_path: Path) -> None:
    data = b"Comment\0\0" + zlib.compress(bytes(200 * 2**20))
    chunk = struct.pack(">I", len(data)) + b"zTXt" + data + struct.pack(">I", zlib.crc32(b"zTXt" + data))
    image = io.BytesIO()
    Image.new("RGB", (20, 20)).save(image, "PNG")
    path = tmp_path / "text.png"
    path.write_bytes(image.getvalue()[:33] + chunk + image.getvalue()[33:])
    with pytest.raises(DataError, match=r"text\.png is broken"):
        read_upload(path)


RATIONAL_MAKE = struct.pack(">HHHII", 2, 0x010F, 5, 1, 38)  # the camera's maker as a fraction, then the orientation
DAMAGED = {
    "PNG": b"XX\0*\0\0\0\x08" + bytes(20),
    "WEBP": b"XX\0*\0\0\0\x08" + bytes(20),
    "JPEG": b"MM\0*\0\0\0\x08" + RATIONAL_MAKE + struct.pack(">HHIHHIII", 0x0112, 3, 1, 6, 0, 0, 1, 2),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_damaged_orientation_is_a_sentence(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"image.{kind.lower()}"
    Image.new("RGB", (40, 20)).save(path, kind, exif=b"Exif\0\0" + DAMAGED[kind])
    with pytest.raises(DataError, match=rf"^image\.{kind.lower()} is broken \("):
        read_upload(path)


def test_upload_that_is_gone_is_not_called_broken(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^own\.png is no longer here; upload it again$"):
        read_upload(tmp_path / "own.png")
