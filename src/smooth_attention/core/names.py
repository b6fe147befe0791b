"""Names: what figures are called, and what people who type a name may have meant."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

FIGURE_TITLES = {
    "iou": "IoU",
    "dice": "Dice",
    "accuracy": "accuracy",
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "boundary_iou": "boundary IoU",
}


def suggest(name: object, known: Iterable[str], *, limit: int = 3) -> str:
    """Return ``"did you mean a, b?"`` with the known names nearest to ``name``, or what is known if none is near."""
    names = list(known)
    near = get_close_matches(str(name).lower(), names, n=limit, cutoff=0.5)
    if near:
        return f"did you mean {', '.join(near)}?"
    shown = ", ".join(names[:15])
    return f"known: {shown}" + (f" and {len(names) - 15} more" if len(names) > 15 else "")
