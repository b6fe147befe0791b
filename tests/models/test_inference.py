"""From images to logits and labels: against the same steps written out, and labels against probabilities."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from smooth_attention.core.errors import ShapeError
from smooth_attention.models import PaperUNet, Preprocessing
from smooth_attention.models.inference import (
    BATCH,
    batches,
    infer,
    label_map,
    predict_logits,
    prepare,
    probabilities,
    resize_logits,
    resized_labels,
)
from smooth_attention.models.preprocessing import resize_image


def draw_image(*shape):
    return np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)


@pytest.mark.parametrize("count", [0, 1, BATCH, 2 * BATCH + 1])
def test_batches_are_the_items_in_their_order(count):
    found = list(batches(range(count)))
    assert [item for batch in found for item in batch] == list(range(count))
    assert all(len(batch) == BATCH for batch in found[:-1])
    assert all(0 < len(batch) <= BATCH for batch in found)


def test_logits_of_an_image_are_those_of_every_step_written_out(make_network):
    """To the last bit: what is saved of masks and figures hangs on it."""
    net, image = make_network(gamma_init=1.0, threshold=0.02, classes=2), draw_image(50, 70)
    net.preprocessing = Preprocessing(64, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    square = torch.from_numpy(resize_image(image, 64)).permute(2, 0, 1)[None]
    mean, std = torch.tensor([0.1, 0.2, 0.3])[:, None, None], torch.tensor([0.4, 0.5, 0.6])[:, None, None]
    with torch.no_grad():
        logits = net.eval()((square / 255 - mean) / std)
    want = F.interpolate(logits, size=(50, 70), mode="bilinear", align_corners=False)[0]
    assert torch.equal(predict_logits(net, image), want)


def test_image_alone_and_in_a_batch_agree(make_network):
    net, images = make_network(), draw_image(3, 32, 32)
    inputs = prepare(net, images)
    assert (inputs.shape, inputs.dtype) == ((3, 3, 32, 32), torch.float32)
    together = infer(net, inputs)
    for number, image in enumerate(images):
        alone = prepare(net, image)
        assert torch.equal(alone, inputs[number : number + 1])
        torch.testing.assert_close(infer(net, alone)[0], together[number], rtol=1e-4, atol=1e-4)


def test_batch_of_one_has_the_memory_layout_of_larger_ones(make_network):
    """A batch's last images round as all others do."""
    net, images = make_network(), draw_image(2, 32, 32)
    for count in (1, 2):
        assert prepare(net, images[:count]).is_contiguous(memory_format=torch.channels_last)
        assert prepare(net, images[:count]).stride(0) == images[0].size


def test_inference_is_in_evaluation_mode_without_gradients_in_float32(make_network):
    net, image = make_network().double().train(), draw_image(32, 32)
    logits = infer(net, prepare(net, image).double())
    assert not net.training
    assert logits.dtype == torch.float32
    assert logits.is_inference()
    assert torch.equal(infer(net, prepare(net, image).double()), logits)  # no running mean moved


@pytest.mark.parametrize("image", [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3)), np.zeros((8, 8, 4), np.uint8)])
def test_arrays_that_are_no_rgb_image_are_refused(image):
    with pytest.raises(ShapeError, match=r"an image is uint8 of shape \(H, W, 3\), got .*; convert it to RGB"):
        predict_logits(PaperUNet(None), image)


def test_labels_follow_probabilities():
    logits = torch.randn(1, 5, 7)
    np.testing.assert_array_equal(label_map(logits), probabilities(logits) >= 0.5)
    logits = torch.randn(4, 5, 7)
    np.testing.assert_array_equal(label_map(logits), probabilities(logits).argmax(0))
    assert resize_logits(logits, (9, 3)).shape == (4, 9, 3)


@pytest.mark.parametrize("num_logits", [1, 6])
@pytest.mark.parametrize("size", [(5, 7), (41, 9), (3, 4)])
def test_labels_class_by_class_are_those_of_all_at_once(num_logits, size):
    logits = torch.randn(num_logits, 5, 7, generator=torch.Generator().manual_seed(0)).round()  # with ties
    np.testing.assert_array_equal(resized_labels(logits, size), label_map(resize_logits(logits, size)))


@pytest.mark.parametrize("num_logits", [1, 4])
def test_labels_of_a_batch_are_those_of_its_images(num_logits):
    logits = torch.randn(3, num_logits, 5, 7, generator=torch.Generator().manual_seed(0))
    np.testing.assert_array_equal(label_map(logits), np.stack([label_map(each) for each in logits]))
    assert label_map(logits).dtype == np.uint8
