"""The package from outside: instant import, its doors, and the names of the rooms that are used by themselves."""

import subprocess
import sys
from importlib import import_module, metadata
from inspect import ismodule

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import smooth_attention as sa

HEAVY = ["torch", "segmentation_models_pytorch", "lightning", "matplotlib", "gradio", "torchvision", "PIL"]
DOORS = [
    "PaperUNet",
    "SmoothAttention",
    "attention_rows",
    "create_model",
    "insert",
    "load_model",
    "neighbour_mean",
    "predict",
    "remove",
    "roughness",
    "smooth_attention",
    "smoothing_gate",
]
ROOMS = {
    "ops": ["attention_rows", "explain_backend", "neighbour_mean", "roughness", "smooth_attention", "smoothing_gate"],
    "models": [
        "ARMS",
        "Block",
        "Network",
        "PaperUNet",
        "Preprocessing",
        "SmoothAttention",
        "block_mode",
        "create_model",
        "insert",
        "load_model",
        "remove",
        "resolve_arm",
    ],
}


def run_python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.parametrize(
    "use", ["import smooth_attention", "from smooth_attention import *; __version__"], ids=["import", "star"]
)
def test_import_is_instant_until_a_door_is_used(use):
    """A star import uses every door; it proves that the heavy modules would have been seen."""
    loaded = run_python(f"{use}\nimport sys\nprint(*sys.modules)")
    if use == "import smooth_attention":
        assert not {name.partition(".")[0] for name in loaded} & set(HEAVY)
        assert len([name for name in loaded if name.startswith("smooth_attention")]) == 1
    else:
        assert "torch" in loaded


def test_inventory_is_the_known_one():
    assert sa.__all__ == ["__version__", *DOORS]


@pytest.mark.parametrize("name", ROOMS)
def test_inventory_of_a_room_is_the_known_one(name):
    """Files of the room are beside its names, and nothing else is."""
    room = import_module(f"smooth_attention.{name}")
    assert room.__all__ == ROOMS[name]
    shown = {each for each, value in vars(room).items() if not each.startswith("_") and not ismodule(value)}
    assert shown == set(ROOMS[name])


@pytest.mark.parametrize("name", DOORS)
def test_door_opens(name):
    door = getattr(sa, name)
    assert callable(door)
    assert door.__name__ == name
    assert door.__module__.startswith("smooth_attention.")
    assert door.__doc__


def test_version_is_the_installed_one():
    assert sa.__version__ == metadata.version("smooth-attention")


@pytest.mark.parametrize("name", ["SmoothAtention", "smooth", "torch", "nn"])
def test_name_that_is_no_door_is_refused(name):
    with pytest.raises(AttributeError, match=f"'smooth_attention' has no attribute '{name}'; its doors: PaperUNet, .*"):
        getattr(sa, name)


def test_dir_lists_every_door_once():
    names = dir(sa)
    assert set(sa.__all__) <= set(names)
    assert len(names) == len(set(names))
    assert names == sorted(names)


def test_operator_and_block_need_the_bare_install_alone():
    """``pip install smooth-attention`` brings torch, numpy and jaxtyping; a blocked import is an ImportError."""
    absent = ["safetensors", "torchvision", "segmentation_models_pytorch", "timm", "lightning", "torchmetrics", "scipy"]
    absent += ["PIL", "pydantic", "tyro", "yaml", "rich", "matplotlib", "plotly"]
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({absent}))\n"
        "import torch, smooth_attention as sa\n"
        "print(*sa.SmoothAttention(8, threshold=0.4)(torch.randn(1, 8, 3, 3)).shape)\n"
        "print(*sa.smooth_attention(*torch.randn(3, 1, 9, 4).unbind(), grid=(3, 3), threshold=0.4).shape)"
    )
    assert run_python(code) == ["1", "8", "3", "3", "1", "9", "4"]


def find_needed(name, extra=""):
    """The distributions that ``pip install name[extra]`` brings, by their names."""
    needed, waiting = set(), [(canonicalize_name(name), extra)]
    while waiting:
        if (asked := waiting.pop()) not in needed:
            needed.add(asked)
            for line in map(Requirement, metadata.requires(asked[0]) or ()):
                if line.marker is None or line.marker.evaluate({"extra": asked[1]}):
                    waiting += [(canonicalize_name(line.name), each) for each in ("", *line.extras)]
    return {name for name, _ in needed}


def test_prediction_needs_the_extra_models_alone(tmp_path):
    """Saved, loaded and used where no other installed package can be imported; no figure, no configuration is read."""
    needed = find_needed("smooth-attention", "models")
    absent = [
        module
        for module, owners in metadata.packages_distributions().items()
        if not needed & {*map(canonicalize_name, owners)}
    ]
    assert {"pydantic", "lightning", "scipy", "matplotlib", "torchmetrics", "rich"} < set(absent)
    assert not {"torch", "torchvision", "PIL", "timm", "smooth_attention"} & set(absent)
    code = f"""
import sys
sys.modules.update(dict.fromkeys({absent}))
import numpy as np, smooth_attention as sa
image = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
for net in (sa.PaperUNet(encoder_weights=None), sa.create_model("unet", encoder_weights=None, classes=3)):
    net.save_pretrained({str(tmp_path / "model")!r})
    mask = sa.predict(sa.load_model({str(tmp_path / "model")!r}), image)
    assert mask.shape == (50, 70) and (mask == sa.predict(net, image)).all()
rooms = ("data.", "metrics.", "viz.", "runs.", "look.", "study.")
print(*(name for name in sys.modules if name.removeprefix("smooth_attention.").startswith(rooms)))
"""
    assert sorted(run_python(code)) == [
        f"smooth_attention.{name}" for name in ("data.files", "data.naming", "data.sources", "runs.predict")
    ]
