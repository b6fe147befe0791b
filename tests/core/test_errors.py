"""What a record says of an error."""

from __future__ import annotations

import pytest

from smooth_attention.core.errors import RunError, reason_of


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RunError("the loss became nan"), "the loss became nan"),
        (ValueError("Expected more\n  than 1 value"), "ValueError: Expected more than 1 value"),
        (KeyError("gamma"), "KeyError: 'gamma'"),
    ],
    ids=repr,
)
def test_reason_is_one_line_and_names_what_is_not_ours(error, reason):
    assert reason_of(error) == reason
