"""Records as plain JSON, to be written and changed by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from smooth_attention.core.files import write_json
from smooth_attention.core.records import RECORD, SCHEMA


def read_values(run: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((run / RECORD).read_text(encoding="utf-8"))
    return values


def write_values(run: Path, values: Mapping[str, Any]) -> None:
    write_json(run / RECORD, {**values, "schema": SCHEMA})
