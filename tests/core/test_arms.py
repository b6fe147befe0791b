"""The rows of the arms against the static names, and the table of them in the docs."""

from pathlib import Path
from typing import get_args

from smooth_attention.core.arms import ARMS, ROWS, Arm

DOCS = Path(__file__).parents[2] / "docs/networks.md"


def test_rows_are_the_static_names_in_their_order():
    assert get_args(Arm) == ARMS
    assert len(ROWS) == len(ARMS)


def test_docs_show_every_row():
    head = ["| arm | what it puts into the network |", "|---|---|"]
    table = "\n".join([*head, *(f"| `{row.name}` | {row.help} |" for row in ROWS)])
    assert f"\n\n{table}\n\n" in DOCS.read_text(encoding="utf-8"), f"docs/networks.md needs this table:\n{table}"
