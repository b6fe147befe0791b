"""The command line: one verb, one file; a verb's module is imported when it is called."""

from __future__ import annotations

import codecs
import errno
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from io import TextIOWrapper
from typing import Any

from smooth_attention.core.errors import DataWarning, OptionError, RequestError, RunError

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
OF_THE_REQUEST = (  # what the system says of a path or a right; all else, such as a full disk, is no wrong request
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST),
    *(errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL),
)
IN_ASCII = str.maketrans({"\N{MINUS SIGN}": "-", "\N{PLUS-MINUS SIGN}": "+/-"})
DONE, FAILED, WRONG_REQUEST, INTERRUPTED = 0, 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 a run failed, 2 the request was wrong, 130 interrupted."""
    codecs.register_error("spelled", spell)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="spelled")
    sys.exit(run(list(sys.argv[1:] if arguments is None else arguments)))


def run(arguments: list[str]) -> int:
    """Return the exit status of a command line."""
    verb = next((verb for verb in VERBS if tuple(arguments[: len(verb)]) == verb), None)
    try:
        if verb is None:
            sys.stdout.write(answer_without_verb(arguments))
        else:
            module = import_module(f"smooth_attention.cli.{'_'.join(verb)}")
            with plain_warnings():
                module.run(arguments[len(verb) :], f"smooth-attention {' '.join(verb)}")
        sys.stdout.flush()
    except RequestError as error:
        return complain(str(error))
    except RunError as error:
        return admit(str(error))
    except UnicodeError as error:
        return complain(f"a text is not in the encoding that it should have: {error}")
    except OSError as error:
        drop_output()
        if isinstance(error, BrokenPipeError):
            return FAILED  # of a pipe into ``head``, say, which has enough
        return (complain if error.errno in OF_THE_REQUEST else admit)(describe(error))
    except KeyboardInterrupt:
        sys.stderr.write("interrupted" + "; the same command continues where it stopped" * (verb in CONTINUED) + "\n")
        return INTERRUPTED
    return DONE


def answer_without_verb(arguments: list[str]) -> str:
    """Return the list of verbs where help is asked for.

    Raises:
        OptionError: on a verb that is not known.
    """
    group_alone = arguments[:1] == ["data"] and arguments[1:] in ([], ["-h"], ["--help"])
    if not arguments or arguments[0] in ("-h", "--help") or group_alone:
        return usage()
    name = " ".join(arguments[:2] if arguments[0] == "data" else arguments[:1])
    raise OptionError(f"no verb {name!r}; known: {', '.join(' '.join(verb) for verb in VERBS)}")


def spell(error: UnicodeError) -> tuple[str, int]:
    """Return what stands for letters that the output's encoding lacks: signs of numbers in ASCII, others as escapes."""
    assert isinstance(error, UnicodeEncodeError)
    letters = error.object[error.start : error.end].translate(IN_ASCII)
    return letters.encode("ascii", "backslashreplace").decode("ascii"), error.end


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


def admit(sentence: str) -> int:
    sys.stderr.write(f"failed: {sentence}\n")
    return FAILED


def describe(error: OSError) -> str:
    """Return one sentence on what the system refused."""
    if error.strerror is None:  # raised by a library, in its own words
        return f"{type(error).__name__}: {' '.join(str(error).split())}"
    paths = " -> ".join(str(path) for path in (error.filename, error.filename2) if path is not None)
    return f"the system says: {error.strerror}" + f" ({paths})" * bool(paths)


def drop_output() -> None:
    """Give up output that can't be written, or Python would complain of it once more at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def usage() -> str:
    width = max(len(" ".join(verb)) for verb in VERBS)
    lines = [f"  {' '.join(verb):{width}}  {text}" for verb, text in VERBS.items()]
    return (
        "usage: smooth-attention VERB [OPTIONS]\n\n"
        + "\n".join(lines)
        + "\n\nsmooth-attention VERB --help tells more.\n"
    )
