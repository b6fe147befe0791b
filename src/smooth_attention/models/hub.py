"""The Hugging Face hub: fetching a model directory by name, and uploading one."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from textwrap import shorten
from typing import Any

from torch import Tensor

from smooth_attention.core.errors import DataError, OptionError
from smooth_attention.models.preprocessing import Preprocessing
from smooth_attention.models.saved import CONFIG, WEIGHTS, write_saved

__all__ = ["fetch", "is_hub_name", "push"]

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def is_hub_name(name: str) -> bool:
    """Return whether ``name`` could be ``owner/name`` on the hub."""
    return HUB_NAME.fullmatch(name) is not None


def fetch(name: str) -> Path:
    """Return the local directory of a model on the hub, downloaded once into the hub's cache.

    Raises:
        DataError: where the hub has no such model or can't be reached.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HTTPError, LocalEntryNotFoundError

    try:
        files = [Path(hf_hub_download(name, filename)) for filename in (CONFIG, WEIGHTS)]
    except (OSError, HTTPError, ValueError, RuntimeError) as error:
        # the client's own sentence blames the connection, also where the hub refused
        reason = error.__cause__ if isinstance(error, LocalEntryNotFoundError) and error.__cause__ else error
        raise DataError(
            f"there is no directory {name}, and the hub gave no model of that name ({one_line(reason)}); "
            "give a run, what save_pretrained wrote, or owner/name on the hub"
        ) from error
    return files[0].parent


def push(
    name: str,
    recipe: Mapping[str, Any],
    preprocessing: Preprocessing,
    facts: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    *,
    private: bool,
) -> str:
    """Upload a model directory of these parts and return its page; see :meth:`Network.push_to_hub`.

    Raises:
        OptionError: where the name is none of the hub.
        DataError: where the hub refuses or can't be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError

    if not is_hub_name(name):
        raise OptionError(f"a model on the hub is called owner/name, got {name!r}")
    api = HfApi(library_name="smooth-attention")
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary) / "model"
        write_saved(directory, recipe, preprocessing, facts, tensors, name=name)
        try:
            address = str(api.create_repo(name, private=private, exist_ok=True))
            api.upload_folder(repo_id=name, folder_path=directory, commit_message="Upload the model")
        except (OSError, HTTPError, ValueError, RuntimeError) as error:
            raise DataError(f"the hub did not take {name} ({one_line(error)}); see `hf auth login`") from error
    return address


def one_line(error: BaseException) -> str:
    return shorten(str(error) or type(error).__name__, 300, placeholder=" ...")
