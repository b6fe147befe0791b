"""The network's input: images at its size, normalised."""

import numpy as np
import pytest
import torch
from PIL import Image

from smooth_attention.models import Preprocessing
from smooth_attention.models.preprocessing import resize_image


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32], ids=str)
def test_preprocessing_normalises_bytes_and_fractions_alike(dtype):
    preprocessing = Preprocessing(mean=(0.0, 0.5, 1.0), std=(1.0, 0.5, 0.25))
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).expand(2, 3, 1, 3)
    images = images if dtype == torch.uint8 else images / 255
    want = torch.tensor([[0.0, 0.2, 1.0], [-1.0, -0.6, 1.0], [-4.0, -3.2, 0.0]])[:, None].expand(2, 3, 1, 3)
    torch.testing.assert_close(preprocessing.normalise(images), want)


@pytest.mark.parametrize("shape", [(5, 9, 3), (5, 9), (40, 17, 3)], ids=str)
def test_resized_image_is_pillows_and_can_be_written_to(shape):
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    got = resize_image(image, 12)
    np.testing.assert_array_equal(got, Image.fromarray(image).resize((12, 12), Image.Resampling.BILINEAR))
    assert got.flags.writeable
    assert got.shape == (12, 12, *shape[2:])
