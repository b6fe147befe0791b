"""Bad input: what was expected, what came, how to mend it; one sentence."""

import math

import pytest
import torch

from smooth_attention.core.errors import OptionError, ShapeError
from smooth_attention.ops import attention_rows, neighbour_mean, roughness, smooth_attention, smoothing_gate

pytestmark = pytest.mark.usefixtures("untyped")

GRID = (3, 4)
X, KEY, VALUE = torch.zeros(2, 12, 8), torch.zeros(2, 5, 8), torch.zeros(2, 5, 6)

BAD_QUERY_AND_KEY = [
    pytest.param(X, KEY, {"grid": (3, 5)}, ShapeError, r"15 cells for 12 positions", id="product"),
    pytest.param(X, KEY, {"grid": (1, 1, 3, 4)}, ShapeError, r"1 to 3 axes", id="four axes"),
    pytest.param(X[0, 0], KEY, {}, ShapeError, r"query needs axes \(..., rows, width\), got \(8,\)", id="flat query"),
    pytest.param(X, KEY[0, 0], {}, ShapeError, r"key needs axes", id="flat key"),
    pytest.param(X, KEY[..., :7], {}, ShapeError, r"same width, got query.shape=.*8.*key.shape=.*7", id="widths"),
    pytest.param(X, KEY[:, :0], {}, ShapeError, r"at least one row", id="no keys"),
    pytest.param(X[..., :0], KEY[..., :0], {}, ShapeError, r"one column", id="no width"),
    pytest.param(X, torch.zeros(3, 5, 8), {}, ShapeError, r"broadcast", id="lead"),
    pytest.param(X.long(), KEY.long(), {}, OptionError, r"query needs a floating-point dtype, got .*int64", id="int"),
    pytest.param(X, KEY.double(), {}, OptionError, r"same dtype, got torch.float32 and torch.float64", id="dtypes"),
    pytest.param(X, KEY.to("meta"), {}, OptionError, r"query and key need the same device, got cpu and meta", id="dev"),
    pytest.param(X, KEY, {"scale": float("nan")}, OptionError, r"scale needs to be finite, got scale=nan", id="scale"),
]
BAD_RULES = [
    pytest.param({"threshold": float("nan")}, r"threshold needs to be a number, got threshold=nan", id="nan"),
    pytest.param(
        {"threshold": 0.4, "fraction": 0.2}, r"exclude each other, got threshold=0.4 and fraction=0.2", id="2"
    ),
    pytest.param({"fraction": 0.0}, r"between 0 and 1, both excluded, got fraction=0.0", id="0"),
    pytest.param({"fraction": 1.0}, r"between 0 and 1", id="1"),
    pytest.param({"fraction": -0.2}, r"between 0 and 1", id="negative"),
    pytest.param({"fraction": float("nan")}, r"between 0 and 1", id="nan fraction"),
]
FIRST = torch.tensor([0])
DOORS = {
    "smooth_attention": lambda query, key, **o: smooth_attention(query, key, torch.zeros_like(key), **o),
    "smoothing_gate": smoothing_gate,
    "attention_rows": lambda query, key, **o: attention_rows(query, key, FIRST, **o),
    "roughness": roughness,
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(("query", "key", "options", "error", "match"), BAD_QUERY_AND_KEY)
def test_query_and_key_are_checked(door, query, key, options, error, match):
    with pytest.raises(error, match=match) as caught:
        DOORS[door](query, key, **{"grid": GRID, **options})
    assert "; " in str(caught.value)  # how to mend it
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("door", ["smooth_attention", "smoothing_gate", "attention_rows"])
@pytest.mark.parametrize(("rule", "match"), BAD_RULES)
def test_rule_is_checked(door, rule, match):
    with pytest.raises(OptionError, match=match):
        DOORS[door](X, KEY, grid=GRID, **rule)


@pytest.mark.parametrize(
    ("value", "error", "match"),
    [
        pytest.param(VALUE[:, :4], ShapeError, r"same number of rows, got key.shape=.*value.shape=", id="rows"),
        pytest.param(VALUE[0, 0], ShapeError, r"value needs axes", id="flat"),
        pytest.param(torch.zeros(3, 5, 6), ShapeError, r"broadcast", id="lead"),
        pytest.param(VALUE.half(), OptionError, r"query and value need the same dtype", id="dtype"),
        pytest.param(VALUE.to("meta"), OptionError, r"query and value need the same device", id="device"),
    ],
)
def test_value_is_checked(value, error, match):
    with pytest.raises(error, match=match):
        smooth_attention(X, KEY, value, grid=GRID, threshold=0.4)


@pytest.mark.parametrize(
    ("positions", "error", "match"),
    [
        pytest.param([12], OptionError, r"positions need to lie in 0 ... 11, got 12", id="too large"),
        pytest.param([3, -1], OptionError, r"positions need to lie in 0 ... 11, got -1", id="negative"),
        pytest.param([[0], [1]], ShapeError, r"positions needs one axis, got \(2, 1\)", id="two axes"),
        pytest.param([0.0], OptionError, r"positions needs an integer dtype, got torch.float32", id="float"),
        pytest.param([True], OptionError, r"positions needs an integer dtype, got torch.bool", id="bool"),
    ],
)
def test_positions_are_checked(positions, error, match):
    with pytest.raises(error, match=match):
        attention_rows(X, KEY, torch.tensor(positions), grid=GRID)


@pytest.mark.parametrize(
    ("x", "error", "match"),
    [
        pytest.param(X[..., :11, :], ShapeError, r"12 cells for 11 positions", id="product"),
        pytest.param(X[0, 0], ShapeError, r"x needs axes", id="flat"),
        pytest.param(X.int(), OptionError, r"x needs a floating-point dtype", id="int"),
    ],
)
def test_neighbour_mean_is_checked(x, error, match):
    with pytest.raises(error, match=match):
        neighbour_mean(x, grid=GRID)


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        pytest.param({"temperature": 0.1}, OptionError, r"a soft gate needs a threshold", id="no threshold"),
        pytest.param({"temperature": 0.1, "fraction": 0.2}, OptionError, r"needs a threshold", id="fraction"),
        pytest.param({"temperature": 0.0, "threshold": 0.4}, OptionError, r"above 0, got temperature=0.0", id="zero"),
        pytest.param({"temperature": -1, "threshold": 0.4}, OptionError, r"above 0, got temperature=-1", id="negative"),
        pytest.param(
            {"temperature": math.nan, "threshold": 0.4}, OptionError, r"above 0, got temperature=nan", id="nan"
        ),
        pytest.param({"threshold": torch.tensor(0.4)}, OptionError, r"Tensor needs a temperature", id="hard tensor"),
        pytest.param(
            {"threshold": torch.zeros(5), "temperature": 0.1}, ShapeError, r"threshold needs to broadcast", id="wide"
        ),
        pytest.param(
            {"threshold": 0.1, "temperature": torch.ones(1, 1, 1, 1)}, ShapeError, r"temperature needs to", id="deep"
        ),
    ],
)
def test_soft_gate_is_checked(options, error, match):
    with pytest.raises(error, match=match):
        smooth_attention(X, KEY, VALUE, grid=GRID, **options)
