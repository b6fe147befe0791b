"""Names: what people who type one may have meant, and how paths are told apart."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path

__all__ = ["short_names", "suggest"]


def suggest(name: object, known: Iterable[str], *, limit: int = 3) -> str:
    """Return ``"did you mean a, b?"`` with the known names nearest to ``name``, or what is known if none is near."""
    names = list(known)
    near = get_close_matches(str(name).lower(), names, n=limit, cutoff=0.5)
    if near:
        return f"did you mean {', '.join(near)}?"
    shown = ", ".join(names[:15])
    return f"known: {shown}" + (f" and {len(names) - 15} more" if len(names) > 15 else "")


def short_names(paths: Sequence[Path]) -> list[str]:
    """Return a different name for each path: that of its directory, with its parents as far as they are needed."""
    resolved = [path.resolve() for path in paths]
    for depth in range(1, max(len(path.parts) for path in resolved)):
        names = ["/".join(path.parts[-depth:]) for path in resolved]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]
