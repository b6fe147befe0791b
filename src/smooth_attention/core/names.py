"""Names that people type: what they may have meant."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def suggest(name: object, known: Iterable[str], *, limit: int = 3) -> str:
    """Return ``"did you mean a, b?"`` with the known names nearest to ``name``, or what is known if none is near."""
    names = list(known)
    near = get_close_matches(str(name).lower(), names, n=limit, cutoff=0.5)
    if near:
        return f"did you mean {', '.join(near)}?"
    shown = ", ".join(names[:15])
    return f"known: {shown}" + (f" and {len(names) - 15} more" if len(names) > 15 else "")
