"""Reading networks back: a saved directory, the directory of a run, a name on the hub."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from textwrap import shorten
from typing import Any

from smooth_attention.core.errors import DataError, OptionError
from smooth_attention.models.arms import build_filter, separate_filter
from smooth_attention.models.hub import fetch, is_hub_name
from smooth_attention.models.insertion import place
from smooth_attention.models.network import Network
from smooth_attention.models.paper import PaperUNet
from smooth_attention.models.saved import CONFIG, read_saved
from smooth_attention.models.smp import SMPNetwork

__all__ = ["load_model"]

FILTER = ("filter", "filter_options")
SMP_RECIPE = ("arch", "encoder_name", "classes", "block", "block_options", *FILTER, "stages", "smp_options")


def load_model(run_or_dir_or_hub_name: str | Path) -> Network:
    """Return the network of a run, of a directory that ``save_pretrained`` wrote, or of a name on the hub.

    It is in evaluation mode. Nothing is unpickled, and but for a name on the hub nothing is downloaded.

    Args:
        run_or_dir_or_hub_name: a RUN (its ``model/`` is read), a model directory, or ``owner/name`` on the hub where
            there is no directory ``owner``.

    Raises:
        DataError: where files are missing, damaged, changed or do not belong together, or the hub has none.

    Example:
        >>> import tempfile, smooth_attention as sa
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     sa.PaperUNet(encoder_weights=None, threshold=0.2).save_pretrained(directory)
        ...     net = sa.load_model(directory)
        >>> net.smooth_attention.threshold
        0.2
    """
    directory = find_directory(run_or_dir_or_hub_name)
    recipe, preprocessing, facts, tensors = read_saved(directory)
    try:
        network = build(recipe)
    except (OptionError, KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise DataError(
            f"{directory}/{CONFIG} describes no network that can be built ({error}); save it again"
        ) from error
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        reason = shorten(str(error), 300, placeholder=" ...")
        raise DataError(f"the weights in {directory} do not fit its {CONFIG}: {reason}") from error
    network.preprocessing, network.facts = preprocessing, facts
    return network.eval()


def find_directory(run_or_dir_or_hub_name: str | Path) -> Path:
    directory = Path(run_or_dir_or_hub_name)
    if directory.suffix in (".pt", ".pth", ".ckpt", ".bin", ".pkl"):
        raise DataError(
            f"{directory} is a pickle, which can run code when it is opened, so it is refused as a model; build its "
            "network with create_model, load torch.load(file, weights_only=True) into it, and call save_pretrained"
        )
    if directory.is_file():
        raise DataError(f"a model is a directory that save_pretrained wrote, got the file {directory}")
    if (directory / "model").is_dir():
        return directory / "model"
    # a name beside things that exist, such as a run misspelt, is not asked for on the net
    if is_hub_name(str(run_or_dir_or_hub_name)) and not directory.parent.exists():
        return fetch(str(run_or_dir_or_hub_name))
    return directory


def build(recipe: Mapping[str, Any]) -> Network:
    """Return the network of a recipe, with random weights."""
    recipe = separate_filter(recipe)
    inserted = recipe.get("inserted", [])
    options = {name: value for name, value in recipe.items() if name not in ("kind", "inserted")}
    network: Network
    if recipe.get("kind") == "paper":
        named = {name: value for name, value in options.items() if name not in FILTER}
        network = PaperUNet(encoder_weights=None, threshold=None, **named)
        network.mask_filter = build_filter(recipe.get("filter"), recipe.get("filter_options"))
    elif recipe.get("kind") == "smp":
        if unknown := options.keys() - SMP_RECIPE:
            raise OptionError(f"a recipe of kind 'smp' holds {', '.join(SMP_RECIPE)}, got {', '.join(sorted(unknown))}")
        network = SMPNetwork({"kind": "smp", **options}, encoder_weights=None)
    else:
        raise OptionError(f"a network's kind is 'paper' or 'smp', got {recipe.get('kind')!r}")
    for item in inserted:
        place(network, **item)
    network.recipe = recipe
    return network
