"""What every network of this package has: logits from images of any size, a recipe to rebuild it, its input's form."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from smooth_attention.core.errors import OptionError, ShapeError
from smooth_attention.models.arms import build_filter, separate_filter
from smooth_attention.models.hub import push
from smooth_attention.models.preprocessing import Preprocessing
from smooth_attention.models.saved import write_saved

__all__ = ["Network", "check_classes"]


class Network(nn.Module):
    """Base of the package's networks: ``(B, 3, H, W)`` float images to ``(B, classes, H, W)`` logits.

    Sides that are no multiple of ``stride``, or below ``min_side``, are padded at the right and the bottom by repeating
    the border, and the logits cropped.

    Attributes:
        recipe: what builds the same network again: its kind, its block and, where its mask is filtered, ``filter`` and
            ``filter_options``; plain JSON values.
        preprocessing: set by training; the ImageNet convention at 224 px before.
        facts: what the model card says of training: ``arm``, ``data``, ``images``, ``protocol``, ``replicate``,
            ``metrics``, ``licence``; empty before.
        mask_filter: post-processing of the logits, the identity where the recipe has no filter.
    """

    recipe: dict[str, Any]
    preprocessing: Preprocessing
    facts: dict[str, Any]

    def __init__(self, recipe: Mapping[str, Any]) -> None:
        super().__init__()
        self.recipe = separate_filter(recipe)
        self.preprocessing = Preprocessing()
        self.facts = {}
        self.mask_filter = build_filter(self.recipe.get("filter"), self.recipe.get("filter_options"))

    @property
    def stride(self) -> int:
        """Sides of what :meth:`decode` takes are multiples of this, in pixels."""
        return 32

    @property
    def min_side(self) -> int:
        """Sides of what :meth:`decode` takes are at least this, in pixels."""
        return self.stride

    @property
    def classes(self) -> int:
        return int(self.recipe["classes"])

    @property
    def label_names(self) -> tuple[str, ...] | None:
        """Names of the labels in its masks, numbers where training has set none; None for a binary task."""
        numbered = None if self.classes == 1 else tuple(f"class {label}" for label in range(self.classes))
        return self.preprocessing.class_names or numbered

    def decode(self, x: Tensor) -> Tensor:
        """Return the logits of images whose sides are multiples of ``stride``."""
        raise NotImplementedError

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b l h w"]:
        if x.ndim != 4 or x.shape[1] != 3 or not x.shape[2] or not x.shape[3]:
            raise ShapeError(
                f"{type(self).__name__} needs images of shape (B, 3, H, W), got {tuple(x.shape)}; add the batch axis, "
                "convert to RGB"
            )
        height, width = x.shape[2:]
        below, right = (max(side + -side % self.stride, self.min_side) - side for side in (height, width))
        if below or right:
            x = F.pad(x, (0, right, 0, below), mode="replicate")
        logits: Tensor = self.mask_filter(self.decode(x)[..., :height, :width])
        return logits

    def save_pretrained(self, directory: str | Path, *, licence: str | None = None) -> None:
        """Write ``config.json``, ``model.safetensors`` and a model card, replacing the directory as a whole.

        Args:
            directory: where to write; :func:`smooth_attention.load_model` reads it back.
            licence: of the weights, e.g. ``"cc-by-4.0"``, for the card; it depends on the data they were trained on.
        """
        self.state_licence(licence)
        write_saved(Path(directory), self.recipe, self.preprocessing, self.facts, self.state_dict())

    def state_licence(self, licence: str | None) -> None:
        """Put the licence of the weights into the facts; None leaves what is there."""
        if licence is not None:
            self.facts = {**self.facts, "licence": licence}

    def push_to_hub(self, name: str, *, licence: str | None = None, private: bool = False) -> str:
        """Upload what :meth:`save_pretrained` writes to the Hugging Face hub, and return the page's address.

        Args:
            name: ``owner/name`` on the hub; made where it does not exist. The token is the one of ``hf auth login``.
            licence: as in :meth:`save_pretrained`.
            private: whether a new repository is private.

        Raises:
            DataError: where the hub refuses or can't be reached.
        """
        self.state_licence(licence)
        return push(name, self.recipe, self.preprocessing, self.facts, self.state_dict(), private=private)


def check_classes(classes: int) -> int:
    """Return ``classes`` if it is a number of logits a network can have.

    Raises:
        OptionError: below one.
    """
    if classes < 1:
        raise OptionError(f"a network needs at least one class, got {classes=}; 1 is a binary task")
    return classes
