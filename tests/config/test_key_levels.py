"""Keys of the cluster file that not every node may know yet."""

from __future__ import annotations

import pytest

from hanat.config import key_levels
from hanat.config.key_levels import key_too_new

TEXT = """
[cluster]
name = "edge"
motto = "new"
[[service]]
name = "web"
  [[service.server]]
  name = "web1"
  zone = "a"
"""


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        ({}, None),
        ({"cluster.motto": 6}, ("cluster.motto", 6)),
        ({"service.server.zone": 7}, ("service.server.zone", 7)),
        ({"service.zone": 6, "cluster.server.zone": 6}, None),
        ({"cluster.motto": 5}, None),
    ],
)
def test_key_that_came_later_is_found(
    monkeypatch: pytest.MonkeyPatch, keys: dict[str, int], found: tuple[str, int] | None
) -> None:
    monkeypatch.setattr(key_levels, "KEY_LEVELS", keys)
    assert key_too_new(TEXT, 5) == found


def test_document_is_not_read_where_nothing_is_new() -> None:
    assert key_too_new("no TOML", 5) is None
