"""The command line: one verb, one file; a verb's module is imported when it is called."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from smooth_attention.core.errors import DataWarning, RequestError, RunError

__all__ = ["main"]

VERBS = {
    ("data", "check"): "what a dataset holds, and what is wrong with it",
    ("data", "preview"): "a picture of a dataset's images with their masks",
    ("data", "fetch"): "a published dataset, downloaded once its licence is accepted",
    ("data", "list"): "the published datasets",
    ("train",): "train one network and score it",
    ("evaluate",): "score a trained network again, also with the gate off or the block bypassed",
    ("study",): "train every arm several times, and say whether smoothing helps, by how much, how sure",
    ("compare",): "compare two runs, or two folders of masks, against a truth",
    ("predict",): "masks for images",
    ("figures",): "the paper's figures of one run, or of two side by side",
    ("look",): "one page of a run that opens anywhere: click into its test images and see where it looks",
    ("app",): "a page on which one clicks into an image and sees where a network looks",
}
CONTINUED = (("data", "fetch"), ("train",), ("study",))  # verbs that go on where they were interrupted
DONE, FAILED, WRONG_REQUEST, INTERRUPTED = 0, 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 a run failed, 2 the request was wrong, 130 interrupted."""
    sys.exit(run(list(sys.argv[1:] if arguments is None else arguments)))


def run(arguments: list[str]) -> int:
    """Return the exit status of a command line."""
    verb = next((verb for verb in VERBS if tuple(arguments[: len(verb)]) == verb), None)
    if verb is None:
        asks_help = not arguments or arguments[0] in ("-h", "--help") or arguments[1:] in ([], ["-h"], ["--help"])
        known = not arguments or arguments[0] in ("-h", "--help") or arguments[0] == "data"
        if asks_help and known:
            sys.stdout.write(usage())
            return DONE
        name = " ".join(arguments[:2] if arguments[0] == "data" else arguments[:1])
        return complain(f"no verb {name!r}; known: {', '.join(' '.join(verb) for verb in VERBS)}")
    module = import_module(f"smooth_attention.cli.{'_'.join(verb)}")
    try:
        with plain_warnings():
            module.run(arguments[len(verb) :], f"smooth-attention {' '.join(verb)}")
    except RequestError as error:
        return complain(str(error))
    except RunError as error:
        sys.stderr.write(f"failed: {error}\n")
        return FAILED
    except KeyboardInterrupt:
        sys.stderr.write("interrupted" + "; the same command continues where it stopped" * (verb in CONTINUED) + "\n")
        return INTERRUPTED
    return DONE


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Show warnings about data as one line each; all others as Python does."""
    show = warnings.showwarning

    def show_plainly(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        if issubclass(category, DataWarning):
            sys.stderr.write(f"warning: {message}\n")
        else:
            show(message, category, *where, **more)

    with warnings.catch_warnings():
        warnings.showwarning = show_plainly
        yield


def complain(sentence: str) -> int:
    sys.stderr.write(f"error: {sentence}\n")
    return WRONG_REQUEST


def usage() -> str:
    width = max(len(" ".join(verb)) for verb in VERBS)
    lines = [f"  {' '.join(verb):{width}}  {text}" for verb, text in VERBS.items()]
    return (
        "usage: smooth-attention VERB [OPTIONS]\n\n"
        + "\n".join(lines)
        + "\n\nsmooth-attention VERB --help tells more.\n"
    )
