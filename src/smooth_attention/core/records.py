"""The record that a run leaves: one JSON file with its configuration, data, versions, figures and diagnostics."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from smooth_attention.core.errors import ConfigError, DamagedError
from smooth_attention.core.files import write_json

SCHEMA = 1
RECORD = "record.json"
STATUSES = ("running", "failed", "done")


def write_record(directory: Path, record: dict[str, Any]) -> None:
    """Write ``record.json``; its status is one of :data:`STATUSES`, undefined figures are null."""
    assert record["status"] in STATUSES
    write_json(directory / RECORD, {**record, "schema": SCHEMA})


def read_record(directory: Path) -> dict[str, Any]:
    """Return the record of a run directory.

    Raises:
        ConfigError: where there is none, or one of another schema.
        DamagedError: where it is no JSON.
    """
    path = directory / RECORD
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ConfigError(f"{directory} is no run: it holds no record.json; give what train wrote") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DamagedError(f"{path} is damaged ({error}); run the training again") from error
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        found = record.get("schema") if isinstance(record, dict) else None
        raise ConfigError(f"{path} has schema {found!r}, expected {SCHEMA}; run the training again")
    return record
