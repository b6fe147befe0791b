"""Reading networks back: a saved directory, or the directory of a run."""

from __future__ import annotations

from pathlib import Path
from textwrap import shorten

from smooth_attention.core.errors import DataError, OptionError
from smooth_attention.models.network import Network, read_saved
from smooth_attention.models.paper import PaperUNet
from smooth_attention.models.smp import SMPNetwork


def load_model(run_or_dir: str | Path) -> Network:
    """Return the network of a run or of a directory that ``save_pretrained`` wrote, in evaluation mode.

    Nothing is downloaded and nothing is unpickled.

    Args:
        run_or_dir: a RUN (its ``model/`` is read) or a model directory.

    Raises:
        DataError: where files are missing, damaged or do not belong together.

    Example:
        >>> import tempfile, smooth_attention as sa
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     sa.PaperUNet(encoder_weights=None, threshold=0.2).save_pretrained(directory)
        ...     net = sa.load_model(directory)
        >>> net.smooth_attention.threshold
        0.2
    """
    directory = Path(run_or_dir)
    if directory.is_file():
        raise DataError(f"a model is a directory that save_pretrained wrote, got the file {directory}")
    directory = directory / "model" if (directory / "model").is_dir() else directory
    try:
        recipe, preprocessing, tensors = read_saved(directory)
        network = build(recipe)
    except (OptionError, KeyError, TypeError) as error:
        raise DataError(
            f"{directory}/config.json describes no network that can be built ({error}); save it again"
        ) from error
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        reason = shorten(str(error), 300, placeholder=" ...")
        raise DataError(f"the weights in {directory} do not fit its config.json: {reason}") from error
    network.preprocessing = preprocessing
    return network.eval()


def build(recipe: dict[str, object]) -> Network:
    options = {name: value for name, value in recipe.items() if name != "kind"}
    if recipe.get("kind") == "paper":
        return PaperUNet(encoder_weights=None, threshold=None, **options)  # type: ignore[arg-type]
    if recipe.get("kind") == "smp":
        return SMPNetwork(recipe, encoder_weights=None)
    raise OptionError(f"a network's kind is 'paper' or 'smp', got {recipe.get('kind')!r}")
