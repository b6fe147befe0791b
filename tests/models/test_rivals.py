"""Rivals against the modules of their libraries; the filter of the mask against scipy's, and against a vote by hand."""

from inspect import signature

import numpy as np
import pytest
import torch
from scipy.ndimage import median_filter

from feature_maps import draw_map
from smooth_attention.core.arms import RIVALS
from smooth_attention.core.errors import OptionError, ShapeError
from smooth_attention.models import block_mode
from smooth_attention.models.arms import build_block, build_filter
from smooth_attention.models.rivals import RIVAL_BLOCKS, MedianFilter, Rival

CHANNELS = 32
WITH_REDUCTION = [name for name in RIVALS if "reduction" in signature(RIVAL_BLOCKS[name]).parameters]
# a softmax over positions, or a normalisation, takes these off again: their gradient is rounding
WITHOUT_EFFECT = ("module.conv_attn.bias", "module.p.bias", "module.g.bias", "module.z.bias")


def load_modules():
    """What each library ships, by the rival's name, built by the library's own options."""
    from segmentation_models_pytorch.base.modules import SCSEModule
    from timm.layers import GlobalContext, NonLocalAttn, SEModule
    from timm.layers.cbam import CbamModule

    return {
        "se": lambda reduction: SEModule(CHANNELS, rd_ratio=1 / reduction),
        "cbam": lambda reduction: CbamModule(CHANNELS, rd_ratio=1 / reduction),
        "gc": lambda reduction: GlobalContext(CHANNELS, rd_ratio=1 / reduction),
        "nl": lambda reduction: NonLocalAttn(CHANNELS, rd_ratio=1 / reduction),
        "scse": lambda reduction: SCSEModule(CHANNELS, reduction=reduction),
    }


def make_rival(name, **options):
    """A rival that does something, and its library's module with the same weights."""
    torch.manual_seed(0)
    block = build_block(name, CHANNELS, options)
    for parameter in block.module.parameters():
        parameter.data.add_(0.1 * torch.randn(parameter.shape))
    theirs = load_modules()[name](options.get("reduction", 8 if name in ("gc", "nl") else 16))
    theirs.load_state_dict(block.module.state_dict())
    return block, theirs


def draw(grid=(7, 5), dtype=torch.float32):
    return draw_map(grid, channels=CHANNELS, dtype=dtype)


def draw_logits(num_classes, shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, num_classes, *shape, generator=generator)


def vote_by_hand(labels, num_classes, size):
    """The label that most pixels of each window have, the lowest of several; a pixel's own wins a tie."""
    rim = size // 2
    padded = np.pad(labels, rim, mode="edge")
    out = np.empty_like(labels)
    for row, column in np.ndindex(labels.shape):
        counts = np.bincount(padded[row : row + size, column : column + size].ravel(), minlength=num_classes)
        own = labels[row, column]
        out[row, column] = own if counts[own] == counts.max() else counts.argmax()
    return out


def test_rivals_are_the_blocks_of_their_arms():
    assert tuple(RIVAL_BLOCKS) == RIVALS


@pytest.mark.parametrize("grid", [(7, 5), (1, 4), (1, 1)], ids=str)
@pytest.mark.parametrize("is_training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("name", RIVALS)
def test_rival_is_the_module_of_its_library_in_output_and_gradients(name, is_training, grid):
    block, theirs = make_rival(name)
    assert block.gamma.item() == 1.0
    block.train(is_training)
    theirs.train(is_training)
    x, x_theirs = draw(grid).requires_grad_(), draw(grid).requires_grad_()
    got, want = block(x), theirs(x_theirs)
    torch.testing.assert_close(got, want)
    assert not torch.allclose(got, x), "the module does nothing, so the comparison says nothing"
    upstream = draw(grid).cos()
    got.backward(upstream)
    want.backward(upstream)
    torch.testing.assert_close(x.grad, x_theirs.grad)
    for (place, mine), parameter in zip(block.module.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, parameter.grad, msg=lambda m, place=place: f"{place}: {m}")


@pytest.mark.parametrize("name", RIVALS)
def test_rival_with_gamma_zero_is_the_identity_bit_for_bit(name):
    block, theirs = make_rival(name)
    x = draw()
    with torch.no_grad():
        assert not torch.equal(theirs.eval()(x), x)
        block.eval().gamma.fill_(0.0)
        assert torch.equal(block(x), x)


@pytest.mark.parametrize("gamma", [0.25, -0.5])
@pytest.mark.parametrize("name", RIVALS)
def test_rival_goes_gamma_of_the_way_to_its_module(name, gamma):
    block, theirs = make_rival(name, gamma_init=gamma)
    x = draw(dtype=torch.float64)
    want = (1 - gamma) * x + gamma * theirs.double().eval()(x)
    torch.testing.assert_close(block.double().eval()(x), want)


@pytest.mark.parametrize("name", RIVALS)
def test_rival_as_built_gives_every_parameter_a_finite_gradient(name):
    """All of nl that comes before its last normalisation, and gamma, wait for one step: its weight starts at 0."""
    torch.manual_seed(0)
    block, x = build_block(name, CHANNELS), draw()
    optimizer = torch.optim.SGD(block.parameters(), lr=0.1)
    for step in range(2):
        optimizer.zero_grad()
        block(x).square().mean().backward()
        for place, parameter in block.named_parameters():
            assert torch.isfinite(parameter.grad).all(), place
            waits = name == "nl" and step == 0 and not place.startswith("module.norm")
            if place not in WITHOUT_EFFECT:
                assert parameter.grad.any() != waits, (place, step)
        optimizer.step()


def test_non_local_starts_as_the_identity():
    block, x = build_block("nl", CHANNELS), draw()
    assert torch.equal(block(x), x)


@pytest.mark.parametrize("name", WITH_REDUCTION)
def test_reduction_reaches_the_module(name):
    """Fewer channels are squeezed by a larger reduction; those of timm have a floor of 8 for se and nl."""
    for reduction in (2, 4):
        block, theirs = make_rival(name, reduction=reduction)
        assert CHANNELS // reduction in {parameter.shape[0] for parameter in block.module.parameters()}
        x = draw()
        torch.testing.assert_close(block.eval()(x), theirs.eval()(x))


@pytest.mark.parametrize("name", RIVALS)
def test_rival_keeps_dtype_and_leaves_its_input_alone(name):
    block, _ = make_rival(name)
    x = draw()
    before = x.clone()
    assert block(x).dtype == torch.float32
    assert torch.equal(x, before)
    assert block.double()(x.double()).dtype == torch.float64


@pytest.mark.parametrize("name", RIVALS)
def test_rival_in_bypass_is_the_identity_and_has_no_gate(name):
    block, _ = make_rival(name)
    block.eval()
    x = draw()
    want = block(x)
    with block_mode(block, "bypass"):
        assert block(x) is x
    with block_mode(block, "gate_off"):
        assert torch.equal(block(x), want)


@pytest.mark.parametrize("shape", [(2, 31, 4, 4), (32, 4, 4), (2, 32, 4), (2, 32, 4, 4, 4)], ids=str)
@pytest.mark.parametrize("name", RIVALS)
def test_rival_refuses_other_shapes(name, shape):
    block = build_block(name, CHANNELS)
    module = type(block.module).__name__
    got = str(shape).replace("(", r"\(").replace(")", r"\)")
    with pytest.raises(ShapeError, match=rf"{module} needs \(B, 32, H, W\), got {got}; set its channels"):
        block(torch.zeros(shape))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        *((name, {"reduction": 0}, "divides the channels of a squeeze, got reduction=0; give 1")
          for name in WITH_REDUCTION),
        *((name, {"threshold": 0.4}, f"block '{name}' does not take these options: .*'threshold'") for name in RIVALS),
        ("scse", {"reduction": 33}, "block 'scse' divides 32 channels by reduction=33; take at most 32"),
        ("nl", {"gamma_init": 0}, "'nl' starts as the identity and would not train from gamma_init=0; leave it at 1"),
        ("nl", {"gamma_init": 0.0}, "would not train from gamma_init=0"),
    ],
    ids=str,
)  # fmt: skip
def test_rival_refuses_options_that_do_not_fit(name, options, message):
    with pytest.raises(OptionError, match=message):
        build_block(name, CHANNELS, options)


@pytest.mark.parametrize("size", [3, 5, 9, 21])
@pytest.mark.parametrize("shape", [(17, 12), (7, 30), (4, 4), (1, 9), (1, 1)], ids=str)
def test_median_of_one_logit_is_scipy_s_filter_of_the_mask(shape, size):
    """The last sizes are larger than the images."""
    for bias in (-0.5, 0.0, 0.5):
        logits = draw_logits(1, shape) + bias
        masks = MedianFilter(size=size).eval()(logits) >= 0
        for mask, image in zip(masks[:, 0], logits[:, 0], strict=True):
            want = median_filter((image >= 0).numpy().astype(np.uint8), size=size, mode="nearest")
            np.testing.assert_array_equal(mask.numpy(), want)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_median_of_logits_of_zero_counts_them_as_foreground(dtype):
    """A pixel whose logit has no sign to flip still changes its side."""
    logits = torch.full((1, 1, 5, 5), -1.0, dtype=dtype)
    logits[..., 2, 2] = 0.0
    median = MedianFilter(size=3).eval()
    assert (median(logits) < 0).all()
    assert (median(-logits) > 0).all()
    assert (median(torch.zeros_like(logits)) >= 0).all()
    assert median(logits).dtype == dtype


@pytest.mark.parametrize("size", [3, 5, 9])
@pytest.mark.parametrize("num_classes", [2, 3, 6])
@pytest.mark.parametrize("shape", [(11, 8), (5, 13), (1, 6), (1, 1)], ids=str)
def test_median_of_classes_is_the_majority_of_the_window(shape, num_classes, size):
    logits = draw_logits(num_classes, shape)
    filtered = MedianFilter(size=size).eval()(logits)
    for image, before in zip(filtered.argmax(1), logits.argmax(1), strict=True):
        np.testing.assert_array_equal(image.numpy(), vote_by_hand(before.numpy(), num_classes, size))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_median_outvotes_a_pixel_whose_classes_have_equal_logits(dtype):
    logits = torch.zeros(1, 3, 3, 3, dtype=dtype)
    logits[:, 2] = 7.0
    logits[..., 1, 1] = 7.0  # all three classes; the first one counts
    assert logits.argmax(1)[0, 1, 1] == 0
    assert (MedianFilter(size=3).eval()(logits).argmax(1) == 2).all()


def test_median_of_classes_keeps_the_label_in_a_tie():
    """Of nine pixels four are 0, four are 1 at the centre; three of each of three classes are a tie as well."""
    labels = torch.tensor([[[0, 1, 0], [1, 1, 0], [2, 1, 0]], [[0, 1, 2], [0, 2, 1], [0, 1, 2]]])
    logits = torch.nn.functional.one_hot(labels, 3).movedim(-1, 1).float()
    assert MedianFilter(size=3).eval()(logits).argmax(1)[:, 1, 1].tolist() == [1, 2]
    logits[0, :, 1, 1] = torch.tensor([0.1, 0.2, 0.9])  # outvoted, and the lowest of the first classes wins
    logits[0, :, 2, 0] = torch.tensor([0.9, 0.2, 0.1])
    assert MedianFilter(size=3).eval()(logits).argmax(1)[0, 1, 1] == 0


@pytest.mark.parametrize("num_classes", [1, 2, 5])
def test_median_keeps_the_confidence_of_each_pixel(num_classes):
    """Of one logit the magnitude, of several all their values: those of two labels change places at most."""
    logits = draw_logits(num_classes, (12, 9))
    filtered = MedianFilter(size=5).eval()(logits)
    assert not torch.equal(filtered, logits), "nothing was filtered"
    if num_classes == 1:
        assert torch.equal(filtered.abs(), logits.abs())
    else:
        assert torch.equal(filtered.sort(1).values, logits.sort(1).values)
        assert ((filtered != logits).sum(1) <= 2).all()


@pytest.mark.parametrize("num_classes", [1, 4])
def test_median_of_a_uniform_mask_changes_nothing(num_classes):
    logits = draw_logits(num_classes, (9, 9)).abs()
    logits[:, 0] += 10
    assert torch.equal(MedianFilter(size=5).eval()(logits), logits)


@pytest.mark.parametrize("num_classes", [1, 3])
def test_median_filters_images_of_a_batch_apart(num_classes):
    logits, median = draw_logits(num_classes, (9, 7)), MedianFilter(size=3).eval()
    assert torch.equal(median(logits), torch.cat([median(one) for one in logits.split(1)]))


@pytest.mark.parametrize("num_classes", [1, 3])
def test_median_in_training_is_the_identity(num_classes):
    logits = draw_logits(num_classes, (9, 7)).requires_grad_()
    assert MedianFilter(size=3).train()(logits) is logits


@pytest.mark.parametrize("num_classes", [1, 3])
def test_median_can_be_bypassed(num_classes):
    logits, median = draw_logits(num_classes, (9, 7)), MedianFilter(size=3).eval()
    with block_mode(median, "bypass"):
        assert median(logits) is logits
    assert not torch.equal(median(logits), logits)


@pytest.mark.parametrize("size", [2, 4, 1, 0, -3])
def test_median_refuses_a_window_without_a_centre_or_neighbours(size):
    with pytest.raises(OptionError, match=f"needs an odd window of 3 pixels or more, got size={size}; such as 5"):
        MedianFilter(size=size)


def test_filter_is_built_by_name():
    assert str(build_filter("median")) == "MedianFilter(size=5)"
    assert build_filter("median", {"size": 7}).size == 7
    assert isinstance(build_filter(None), torch.nn.Identity)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("median", {"width": 7}, "filter 'median' does not take these options: .*'width'"),
        ("medina", {}, r"a filter is one of .*, got 'medina'; did you mean median\?"),
        ("smooth", {}, "a filter is one of .*, got 'smooth'"),
    ],
    ids=str,
)
def test_filter_unknown_or_with_foreign_options_is_refused(name, options, message):
    with pytest.raises(OptionError, match=message):
        build_filter(name, options)


@pytest.mark.parametrize("num_classes", [1, 3])
def test_median_compiles_in_one_graph(num_classes):
    torch.compiler.reset()
    logits, median = draw_logits(num_classes, (9, 7)), MedianFilter(size=3).eval()
    assert torch.equal(torch.compile(median, backend="eager", fullgraph=True)(logits), median(logits))


@pytest.mark.parametrize("num_classes", [1, 3])
def test_median_is_exported_for_any_image_size(num_classes):
    median = MedianFilter(size=5).eval()
    sides = {2: torch.export.Dim("height", min=2, max=512), 3: torch.export.Dim("width", min=2, max=512)}
    program = torch.export.export(median, (draw_logits(num_classes, (9, 7)),), dynamic_shapes=(sides,))
    for shape in ((9, 7), (3, 20)):
        logits = draw_logits(num_classes, shape)
        assert torch.equal(program.module()(logits), median(logits))


@pytest.mark.parametrize("name", RIVALS)
def test_rival_compiles_in_one_graph(name):
    torch.compiler.reset()
    block, _ = make_rival(name)
    x = draw()
    assert isinstance(block, Rival)
    block.eval()
    assert torch.equal(torch.compile(block, backend="eager", fullgraph=True)(x), block(x))
