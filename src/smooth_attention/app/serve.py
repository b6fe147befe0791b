"""Serving the page: the first page before the networks are there, on this machine alone unless told otherwise."""

from __future__ import annotations

import os
import signal
import socket
import tempfile
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING

from smooth_attention.core.errors import ConfigError
from smooth_attention.core.names import short_names
from smooth_attention.core.records import RECORD

if TYPE_CHECKING:
    from collections.abc import Callable

    from smooth_attention.app.viewer import Viewer

__all__ = ["serve"]

MAX_UPLOAD = "200mb"
UNTRAINED = "untrained U-Net"


def serve(paths: Sequence[Path], *, host: str, port: int | None, announce: Callable[[str], None]) -> None:
    """Serve the page until it is interrupted.

    Args:
        paths: runs and model directories; none: an untrained network.
        host: address to bind to, an IPv6 one with or without brackets.
        port: to listen at; None: the first free one from 7860 on.
        announce: gets the page's address as soon as it is served.

    Raises:
        ConfigError: where a path is no run and no model, Gradio is not installed, or the port is taken.
    """
    host = host.strip("[]")
    check_paths(paths)
    check_address(host, port)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # Gradio would call home when it is imported
    try:
        import gradio as gr
    except ImportError as error:
        raise ConfigError("the app needs Gradio; install smooth-attention[app]") from error
    from smooth_attention.app.page import CSS, build_page

    viewer: Future[Viewer] = Future()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as by Ctrl-C, with its files removed
    with tempfile.TemporaryDirectory(prefix="smooth-attention-") as folder:
        # uploads and pictures of this page alone, gone with it; Gradio's own folder is shared by all its pages
        os.environ["GRADIO_TEMP_DIR"] = folder
        page = build_page(names_of(paths), viewer.result, Path(folder))
        _, address, _ = page.launch(
            server_name=f"[{host}]" if ":" in host else host,
            server_port=port,
            prevent_thread_lock=True,
            quiet=True,
            share=False,
            ssr_mode=False,
            footer_links=[],
            max_file_size=MAX_UPLOAD,
            theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"]),
            css=CSS,
        )
        try:
            announce(address)
            threading.Thread(target=load, args=(viewer, paths), daemon=True).start()
            threading.Event().wait()
        finally:
            page.close(verbose=False)


def check_paths(paths: Sequence[Path]) -> None:
    """Raise unless each is a finished-looking run or a model directory, looked at from outside and at once."""
    if len({path.resolve() for path in paths}) != len(paths):
        raise ConfigError("a run is named twice; name each once")
    for path in paths:
        if not ((path / RECORD).is_file() or (path / "config.json").is_file()):
            raise ConfigError(f"{path} is no run and no model: it holds neither {RECORD} nor config.json")


def check_address(host: str, port: int | None) -> None:
    """Raise unless one can listen there; Gradio would try a hundred ports of a host that does not exist."""
    if port is not None and not 0 < port < 65536:
        raise ConfigError(f"a port is a number from 1 to 65535, got {port}; 7860 is usual")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port or 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind(address)
    except OSError as error:
        place = host if port is None else f"{host}, port {port}"
        raise ConfigError(f"can't listen at {place} ({error}); give another --port or --host") from error


def names_of(paths: Sequence[Path]) -> list[str]:
    """Return the networks' names in the list."""
    return short_names(paths) if paths else [UNTRAINED]


def load(viewer: Future[Viewer], paths: Sequence[Path]) -> None:
    """Import torch and make the viewer, whatever becomes of it."""
    try:
        from smooth_attention.app.viewer import Viewer

        made = Viewer(dict(zip(names_of(paths), paths, strict=True)) if paths else {UNTRAINED: None})
    except BaseException as error:
        viewer.set_exception(error)
        raise
    viewer.set_result(made)
