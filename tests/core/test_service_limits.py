"""Lists of a service's clients, as text: made once, and only those in use are kept."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from ipaddress import ip_network

import pytest

from hanat.core import service_limits
from hanat.core.configuration import Network, VirtualService
from hanat.core.forward_policy import networks_of
from hanat.core.service_limits import limit_blocks
from tests.core.examples import WEB


class Made:
    """Counts which lists are made."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        monkeypatch.setattr(service_limits, "networks_of", self._networks_of)

    def _networks_of(self, networks: Iterable[Network], version: int) -> list[str]:
        self.count += 1
        return networks_of(networks, version)


def denying(number: int, networks: int) -> VirtualService:
    """Return a service that refuses so many networks, which no other refuses."""
    first = 0x0A000000 + number * networks * 512
    denied = tuple(ip_network((first + 512 * n, 24)) for n in range(networks))
    return replace(WEB, name=f"s{number}", deny=denied)


@pytest.mark.parametrize(("lists", "networks"), [(2000, 10), (20, 1000)])
def test_lists_of_the_largest_configuration_are_made_once(
    lists: int, networks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = [denying(n, networks) for n in range(lists)]
    for service in many:
        limit_blocks(service, 4)
    made = Made(monkeypatch)
    for service in many:
        assert limit_blocks(service, 4)
    assert made.count == 0


def test_lists_of_revisions_of_before_are_not_kept_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = Made(monkeypatch)
    first = denying(30, 1000)
    limit_blocks(first, 4)
    for number in range(31, 230):
        limit_blocks(denying(number, 1000), 4)
    made.count = 0
    limit_blocks(first, 4)
    assert made.count == 1
