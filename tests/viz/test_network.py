"""The figure of a network: all is written that is known, nothing lies over anything else, arrows join what reads."""

from __future__ import annotations

import itertools
import time
from collections import Counter

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex, to_rgb
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle
from matplotlib.text import Text
from matplotlib.transforms import Affine2D

from smooth_attention.core.errors import OptionError
from smooth_attention.look.stages import Stage, Stages, trace_stages
from smooth_attention.models import PaperUNet, insert
from smooth_attention.viz.colours import lab_as_seen
from smooth_attention.viz.network import COLOURS, network_figure
from smooth_attention.viz.network_layout import count_text
from smooth_attention.viz.study_charts import FAINT, INK
from zoo import NETWORKS, OPTIONS

LONG_RULE = "threshold 0.123, temperature 0.0456"


def trace(net):
    return trace_stages(net, 64)


def stage(name="encoder.layer1", **values):
    shown = {"modules": (name,), "role": name.split(".")[0], "kind": "Sequential", "rule": "", "shape": (64, 56, 56)}
    return Stage(**{"name": name, "parameters": 147_968, "follows": True} | shown | values)


def make_stages(num_stages, first, block=None, links=(), word="some_module"):
    """Return as many stages, the decoder's from ``first`` on, with a block at a place."""
    stages = []
    for number in range(num_stages):
        depth = min(number, num_stages - 1 - number) // 3
        values = {"shape": (min(2048, 16 << depth), 512 >> depth, 512 >> depth), "parameters": 1_234_567 * (number + 1)}
        if number == block:
            values |= {"role": "block", "kind": "RandomSmoothAttention", "rule": LONG_RULE}
        follows = number > 0 and not (number == block and any(j == block for _, j in links))
        half = "encoder" if number < first else "decoder"
        stages.append(stage(f"{half}.{word}.{number}", follows=follows, **values))
    return Stages(tuple(stages), tuple(links), (3, 512, 512))


NAMES = (
    "paper",
    "unet",
    "unet-none",
    "unet-median",
    "fpn-three-stages",
    "pspnet",
    "deeplabv3plus-mobilenet_v2",
    "segformer-mit_b0",
    "dpt-vit",
    "unetplusplus-hrnet",
)
STAGES = {
    **{name: lambda name=name: trace(NETWORKS[name]()) for name in NAMES},
    "unet-inserted": lambda: trace(
        insert(PaperUNet(None), {"encoder.6": 256, "decoder.3": 128}, block_options=OPTIONS)
    ),
    "24": lambda: make_stages(24, 12, 11, [(i, 23 - i) for i in range(11)]),
    "24-long-encoder": lambda: make_stages(24, 22, 21, [(3, 22)]),
    "24-long-decoder": lambda: make_stages(24, 3, 2, [(0, 20), (1, 10), (3, 5)]),
    "24-block-in-row": lambda: make_stages(24, 12, 5),
    "24-block-beside": lambda: make_stages(24, 20, 19, [(17, 19), (18, 20)]),
    "8": lambda: make_stages(8, 4, 3, [(1, 5)]),
    "8-long-names": lambda: make_stages(8, 4, word="a_module.with_a.very_long_name.of_many_words"),
    "encoder-alone": lambda: make_stages(9, 9),
    "1": lambda: make_stages(1, 1),
}


@pytest.fixture(scope="module", params=STAGES)
def traced(request: pytest.FixtureRequest) -> Stages:
    return STAGES[request.param]()


@pytest.fixture(scope="module")
def unet() -> Stages:
    return STAGES["unet"]()


def draw(traced, title="Network"):
    """Return the figure and its canvas, drawn at 300 dpi."""
    figure = network_figure(traced.stages, traced.links, title=title, input_shape=traced.input_shape)
    figure.set_dpi(300)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return figure, canvas


@pytest.fixture(scope="module")
def drawn(traced):
    return draw(traced, "PaperUNet, $x_1$")


def find(figure, kind):
    return [patch for patch in figure.axes[0].patches if isinstance(patch, kind)]


def find_texts(figure):
    return [text for text in figure.findobj(Text) if text.get_text()]


def find_boxes(figure):
    """Return the boxes in the order of the stages."""
    return find(figure, Rectangle)


def written(figure):
    """Return all that is written, without what parts lines and words."""
    return "".join(text.get_text() for text in find_texts(figure)).replace(" ", "").replace(",", "")


def label(stage):
    """Return the label that a stage should have, as it stands in :func:`written`."""
    name = stage.name
    if stage.role in ("block", "filter"):
        name = stage.kind + stage.rule
    elif stage.role in ("encoder", "decoder") and not name.split(".")[1][0].isdigit():
        name = name.split(".", 1)[1]
    shape = "x".join(str(side) for side in stage.shape)
    return f"{name}{shape}{count_text(stage.parameters)}".replace(" ", "").replace(",", "")


def do_overlap(a, b):
    """Whether two extents share more than half a point."""
    width = min(a.x1, b.x1) - max(a.x0, b.x0)
    height = min(a.y1, b.y1) - max(a.y0, b.y0)
    return min(width, height) > 0.5 * 300 / 72


def test_name_shape_and_parameters_of_every_stage_are_written(traced, drawn):
    figure, _ = drawn
    text = written(figure)
    for stage in traced.stages:
        if stage.role == "unused":
            assert f"notrun:{count_text(stage.parameters)}parameters".replace(" ", "") in text
        else:
            assert label(stage) in text
    for half in ("encoder", "decoder"):
        captions = " ".join(text.get_text() for text in find_texts(figure) if text.get_size() == 8.0)
        assert (half in captions) == any(stage.role == half for stage in traced.stages)


def test_title_has_all_parameters_and_the_input(traced, drawn):
    total, side = count_text(traced.parameters), traced.input_shape[-1]
    titles = [text.get_text() for text in find_texts(drawn[0])]
    assert f"PaperUNet, $x_1$: {total} parameters, input 3 x {side} x {side}" in titles


def test_no_text_lies_over_another_or_over_the_edge(drawn):
    figure, canvas = drawn
    extents = [(text.get_text(), text.get_window_extent(canvas.get_renderer())) for text in find_texts(figure)]
    for (name, a), (other, b) in itertools.combinations(extents, 2):
        assert not do_overlap(a, b), (name, other)
    for name, extent in extents:
        assert extent.x0 >= 0, name
        assert extent.y0 >= 0, name
        assert extent.x1 <= figure.bbox.x1, name
        assert extent.y1 <= figure.bbox.y1, name


def test_no_text_lies_over_a_box_and_no_box_over_another(drawn):
    figure, canvas = drawn
    boxes = [box.get_window_extent() for box in find_boxes(figure)]
    for a, b in itertools.combinations(boxes, 2):
        assert not do_overlap(a, b)
    for text in find_texts(figure):
        extent = text.get_window_extent(canvas.get_renderer())
        assert not any(do_overlap(extent, box) for box in boxes), text.get_text()
    cards = [card.get_window_extent() for card in find(figure, FancyBboxPatch)]
    assert not any(do_overlap(a, b) for a, b in itertools.combinations(cards, 2))
    for card in cards:  # which hold one box, that of their block
        assert sum(do_overlap(card, box) for box in boxes) == 1


def test_letters_can_be_read_in_print(drawn):
    figure, _ = drawn
    assert figure.get_figwidth() == 7.0
    assert min(text.get_size() for text in find_texts(figure)) >= 5.4
    assert figure.get_figheight() < 9.0  # of a page


def test_figure_is_drawn_at_once(traced):
    start = time.process_time()  # other work on the machine does not count
    draw(traced)
    assert time.process_time() - start < 5


def points_of(arrow):
    """Return points along an arrow, in inches."""
    path = arrow._path_original.transformed(Affine2D().scale(1000))  # curves are flattened by pixels
    corners = np.vstack(path.to_polygons(closed_only=False)) / 1000
    places = np.linspace(0, len(corners) - 1, 20 * len(corners))
    return np.stack([np.interp(places, range(len(corners)), corners[:, axis]) for axis in (0, 1)], axis=1)


def outline(patch):
    x, y, width, height = patch.get_x(), patch.get_y(), patch.get_width(), patch.get_height()
    return np.array([[x, y], [x + width, y + height]])


def outlines(figure):
    """Return what the arrows join: of each stage its box, or the frame that holds it."""
    frames = [outline(card) for card in find(figure, FancyBboxPatch)]
    found = []
    for box in map(outline, find_boxes(figure)):
        found.append(next((frame for frame in frames if is_in(box.mean(0), frame)), box))
    return found


def is_in(points, rectangle, reach=0.01):
    low, high = rectangle
    return bool(((low - reach <= points) & (points <= high + reach)).all(axis=-1).any())


def test_an_arrow_leads_from_each_stage_to_those_that_read_it(traced, drawn):
    figure, _ = drawn
    pairs = set(traced.links) | {(number - 1, number) for number, stage in enumerate(traced.stages) if stage.follows}
    places = outlines(figure)
    ends = [points_of(arrow)[[0, -1]] for arrow in find(figure, FancyArrowPatch)]
    joined = [{(i, j) for i, j in pairs if is_in(start, places[i]) and is_in(end, places[j])} for start, end in ends]
    assert all(len(found) == 1 for found in joined)
    assert set().union(*joined) == pairs
    assert len(ends) == len(pairs)
    for arrow in find(figure, FancyArrowPatch):  # from edge to edge
        assert not any(is_in(points_of(arrow), place, -0.01) for place in places)


def test_no_arrow_runs_behind_a_block_that_is_not_its_own_or_over_the_edge(drawn):
    figure, _ = drawn
    frames = [outline(card) for card in find(figure, FancyBboxPatch)]
    for arrow in find(figure, FancyArrowPatch):
        points = points_of(arrow)
        for frame in frames:
            if not (is_in(points[0], frame) or is_in(points[-1], frame)):
                assert not is_in(points, frame, 0.0)
        assert 0.08 <= points[:, 0].min() <= points[:, 0].max() <= 7 - 0.08


def test_boxes_grow_with_side_and_channels(unet):
    boxes = find_boxes(draw(unet)[0])
    for stage, box in zip(unet.stages, boxes, strict=True):
        for other, other_box in zip(unet.stages, boxes, strict=True):
            if stage.shape[0] >= other.shape[0]:
                assert box.get_width() >= other_box.get_width() - 1e-9
            if stage.shape[1] >= other.shape[1]:
                assert box.get_height() >= other_box.get_height() - 1e-9
    assert len({round(box.get_width(), 6) for box in boxes}) == len({stage.shape[0] for stage in unet.stages})


def test_encoder_runs_to_the_right_and_the_decoder_back_below_it(unet):
    boxes = find_boxes(draw(unet)[0])
    lefts = [box.get_x() for box in boxes]
    assert lefts[:5] == sorted(lefts[:5])
    assert lefts[6:] == sorted(lefts[6:], reverse=True)
    block = boxes[5]
    assert min(box.get_y() for box in boxes[:5]) > block.get_y() + block.get_height()
    assert max(box.get_y() + box.get_height() for box in boxes[6:]) < block.get_y()


def test_skip_links_of_a_unet_run_straight_down(unet):
    figure, _ = draw(unet)
    across = [points_of(arrow) for arrow in find(figure, FancyArrowPatch)]
    upright = [points for points in across if np.ptp(points[:, 0]) < 1e-6 < np.ptp(points[:, 1])]
    assert len(upright) == 5  # conv1, layer1, layer2, layer3 to its block, the block to the decoder


def test_skip_links_differ_from_the_way_through_the_network(unet):
    arrows = find(draw(unet)[0], FancyArrowPatch)
    widths = {to_hex(arrow.get_edgecolor()): arrow.get_linewidth() for arrow in arrows}
    assert widths[FAINT] < widths[INK]
    colours = Counter(to_hex(arrow.get_edgecolor()) for arrow in arrows)
    # the way: four arrows in the encoder, one to the decoder, five there
    assert colours == {INK: 10, FAINT: 3, "#{:02x}{:02x}{:02x}".format(*COLOURS["block"]): 2}


def test_lines_beside_a_block_stay_apart():
    figure, _ = draw(STAGES["dpt-vit"]())
    (frame,) = (outline(card) for card in find(figure, FancyBboxPatch))
    (left, bottom), (right, top) = frame
    xs = []
    for points in map(points_of, find(figure, FancyArrowPatch)):
        if points[0, 1] > top > bottom > points[-1, 1]:
            xs.append(np.interp((bottom + top) / 2, points[::-1, 1], points[::-1, 0]))
    assert len(xs) == 4
    assert np.diff(sorted(xs)).min() > 0.03
    assert all(x < left - 0.03 or x > right + 0.03 for x in xs)


def test_more_stages_than_can_be_read_do_not_lie_over_each_other():
    figure, canvas = draw(make_stages(45, 43, 20))
    extents = [text.get_window_extent(canvas.get_renderer()) for text in find_texts(figure)]
    assert not any(do_overlap(a, b) for a, b in itertools.combinations(extents, 2))


def test_block_stands_out_by_its_colour_and_frame(traced, drawn):
    figure, _ = drawn
    shown = [stage for stage in traced.stages if stage.role != "unused"]
    is_block = [stage.role == "block" for stage in shown]
    colour = np.array(COLOURS["block"]) / 255
    assert [np.allclose(to_rgb(box.get_facecolor()), colour) for box in find_boxes(figure)] == is_block
    named = [text.get_text() for text in find_texts(figure) if np.allclose(to_rgb(text.get_color()), colour)]
    assert sum("SmoothAttention" in text for text in named) == sum(is_block)


def test_colours_stay_apart_to_colour_blind_eyes():
    for seen in lab_as_seen(np.array(list(COLOURS.values()), np.uint8)):
        distances = [np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)]
        assert min(distances) > 15


def test_nothing_global_is_touched(unet):
    before = dict(matplotlib.rcParams)
    draw(unet)
    assert dict(matplotlib.rcParams) == before
    assert pyplot.get_fignums() == []


def test_settings_of_others_change_nothing(unet, tmp_path):
    draw(unet)[0].savefig(tmp_path / "plain.png", dpi=50)
    with matplotlib.rc_context({"font.family": "serif", "font.size": 20, "text.color": "red"}):
        draw(unet)[0].savefig(tmp_path / "other.png", dpi=50)
    assert (tmp_path / "plain.png").read_bytes() == (tmp_path / "other.png").read_bytes()


@pytest.mark.parametrize("name", ["encoder.$x_{0}$", "encoder.", "encoder.<b>&", "other_name", "encoder.\\frac"])
def test_any_name_is_shown_as_it_is(name):
    figure, _ = draw(Stages((stage(name, role="encoder"), stage("decoder.a")), (), (3, 8, 8)))
    assert name.removeprefix("encoder.") in written(figure)
    assert not any(text.get_parse_math() for text in find_texts(figure))


@pytest.mark.parametrize("shape", [(197, 192), (1000,), (), (1, 1, 1), (2, 3, 4, 5)], ids=str)
def test_any_shape_is_drawn(shape):
    figure, _ = draw(Stages((stage(shape=shape), stage("decoder.a")), (), (3, 8, 8)))
    assert label(stage(shape=shape)) in written(figure)
    assert all(box.get_width() > 0 < box.get_height() for box in find_boxes(figure))


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1 k"),
        (147_968, "148 k"),
        (999_499, "999 k"),
        (999_500, "1 M"),
        (1_234_567, "1.23 M"),
        (12_661_410, "12.7 M"),
        (999_499_999, "999 M"),
        (1_500_000_000, "1.5 G"),
    ],
)
def test_counts_have_three_digits(count, text):
    assert count_text(count) == text


def test_no_stage_is_refused():
    unused = stage("not run", role="unused")
    with pytest.raises(OptionError, match="needs stages that run, got none; find them with trace_stages"):
        network_figure([unused], (), title="", input_shape=(3, 8, 8))


@pytest.mark.parametrize("link", [(0, 0), (1, 0), (0, 2), (-1, 1)])
def test_link_to_a_stage_that_is_not_there_is_refused(link):
    stages = [stage(), stage("decoder.a"), stage("not run", role="unused")]
    with pytest.raises(OptionError, match=r"one of 2 stages that run to a later one, got \(" + f"{link[0]}, {link[1]}"):
        network_figure(stages, [link], title="", input_shape=(3, 8, 8))
