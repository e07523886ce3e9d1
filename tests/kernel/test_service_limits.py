"""Who may come to a service, and how many, on real packets."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_network

import pytest

from hanat.core import configuration as core
from hanat.core import service_limits
from hanat.core.configuration import Configuration, Limits, Persistence, Scheduler
from hanat.core.ruleset import render_rotations, render_ruleset
from hanat.core.schedulers import InRotation
from hanat.core.service_limits import counter_of, reasons_of
from hanat.core.services import Rotations, Turns
from hanat.core.steps import keeping_clients, steps
from hanat.kernel.counters import KernelCounters
from hanat.kernel.nft_encoding import encoded
from tests.core.examples import DEVICES
from tests.kernel.namespaces import run, until
from tests.kernel.network import (
    CLIENT,
    CLIENT_V6,
    CONFIGURATION,
    SERVER,
    SERVER_PORT,
    SERVER_V6,
    SERVICE_PORT,
    VIP,
    VIP_V6,
    Network,
    echo_socket,
    family_of,
    talk,
)

pytestmark = pytest.mark.kernel

FAMILIES = pytest.mark.parametrize(
    ("vip", "server", "client", "neighbour"),
    [
        (VIP, SERVER, CLIENT, "203.0.113.7"),
        (VIP_V6, SERVER_V6, CLIENT_V6, "2001:db8:1:0:1::7"),
    ],
    ids=["v4", "v6"],
)
SILENCE_S = 0.3


class Limited:
    """The example on the first router, its service ``echo`` limited, led along by steps."""

    def __init__(self, network: Network) -> None:
        self.network, self.router = network, network.r1
        self._counters = KernelCounters()
        self._text = ""
        self.configuration: Configuration = CONFIGURATION
        self.router.take_over()

    def close(self) -> None:
        self._counters.close()

    def put(self, rotations: Rotations | None = None, **others: object) -> None:
        """Bring the service into force with something else of it."""
        service = replace(CONFIGURATION.services[0], **others)  # type: ignore[arg-type]  # any
        self.configuration = replace(CONFIGURATION, services=(service, *CONFIGURATION.services[1:]))
        text = render_ruleset(
            self.configuration, DEVICES, self.router.conversation, rotations=rotations
        )
        plan = steps(self._text, text) if self._text else None
        scripts = [text] if plan is None else [*plan.builds, plan.switch, *plan.clears]
        with self.router.entered():
            for script in filter(None, scripts):
                self.router.firewall.apply(script)
        self._text = text

    def rotate(self, before: Rotations, after: Rotations) -> bool:
        """Follow a rotation; say whether all of it needed no library."""
        plan = steps(*render_rotations(self.configuration, Turns(before), Turns(after)))
        assert plan is not None
        scripts = list(filter(None, (*plan.builds, plan.switch, *plan.clears)))
        with self.router.entered():
            for script in scripts:
                self.router.firewall.apply(script)
        return bool(scripts) and all(encoded(script) is not None for script in scripts)

    def replace(self) -> None:
        """Install all of it anew, as if nobody knew what is there."""
        with self.router.entered():
            there = self.router.firewall.names("inet", "hanat")
            self.router.firewall.apply(keeping_clients(self._text, self._text, there))

    @property
    def refused(self) -> Counter[str]:
        """How many first packets each limit dropped."""
        found: dict[str, int] = {}
        with self.router.entered():
            for part in self._counters.walk("inet", "hanat"):
                found |= part
        service = self.configuration.services[0]
        named = {reason: found[counter_of("echo", reason)] for reason in reasons_of(service)}
        return +Counter(named)

    def ask(self, vip: str, count: int = 1, *, source: str = "") -> int:
        """Send a datagram from each of so many sockets; return how many have arrived."""
        family = family_of(vip)
        for _ in range(count):
            asking = self.network.open_socket("client", family, socket.SOCK_DGRAM)
            asking.bind((source, 0))
            asking.sendto(b"x", (vip, SERVICE_PORT))
        return count


@pytest.fixture
def limited(network: Network) -> Iterator[Limited]:
    made = Limited(network)
    yield made
    made.close()


def arrived(echo: socket.socket) -> int:
    """Return how many datagrams came to the server; none is on its way any more."""
    echo.settimeout(SILENCE_S)
    count = 0
    while True:
        try:
            echo.recv(8)
        except TimeoutError:
            return count
        count += 1


def networks(*texts: str) -> tuple[core.Network, ...]:
    return tuple(map(ip_network, texts))


@FAMILIES
def test_client_that_is_denied_gets_nowhere_and_its_neighbour_does(
    limited: Limited, vip: str, server: str, client: str, neighbour: str
) -> None:
    echo = echo_socket(limited.network, server)
    length = 24 if vip == VIP else 64
    run(f"ip addr add {neighbour}/{length} dev eth0 nodad", limited.network.made["client"])
    own = f"{client}/{32 if vip == VIP else 128}"

    limited.put(deny=networks(own))
    limited.ask(vip, 2, source=client)
    limited.ask(vip, 3, source=neighbour)
    assert (arrived(echo), limited.refused) == (3, {"deny": 2})

    limited.put(allow=networks(own))
    limited.ask(vip, 2, source=client)
    limited.ask(vip, 3, source=neighbour)
    assert (arrived(echo), limited.refused) == (2, {"allow": 3})

    limited.put(allow=networks("203.0.113.0/24", "2001:db8:1::/64"), deny=networks(own))
    limited.ask(vip, 2, source=client)
    limited.ask(vip, 3, source=neighbour)
    assert (arrived(echo), limited.refused) == (3, {"deny": 2, "allow": 3})


@pytest.mark.parametrize(("vip", "server"), [(VIP, SERVER), (VIP_V6, SERVER_V6)])
def test_with_networks_of_one_family_alone_the_other_has_no_clients(
    limited: Limited, vip: str, server: str
) -> None:
    echo = echo_socket(limited.network, server)
    limited.put(allow=networks("::/0" if vip == VIP else "0.0.0.0/0"))

    limited.ask(vip, 2)

    assert (arrived(echo), limited.refused) == (0, {"allow": 2})


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM], ids=["tcp", "udp"])
def test_client_that_is_denied_is_not_even_refused(
    limited: Limited, kind: socket.SocketKind
) -> None:
    """Not that there is no server, nor that there is a service."""
    limited.put({"echo": ()}, deny=networks(f"{CLIENT}/32"))

    for vip, expected in ((VIP, TimeoutError), (VIP_V6, ConnectionRefusedError)):
        asking = limited.network.open_socket("client", family_of(vip), kind)
        asking.settimeout(SILENCE_S)
        with pytest.raises(expected):
            _ask(asking, vip)
    assert limited.refused == {"deny": 1}


def test_connections_that_are_established_go_on_when_their_client_is_denied(
    limited: Limited,
) -> None:
    listener = limited.network.listener("server", SERVER, SERVER_PORT)
    limited.put()
    near, far = limited.network.connection(listener, "client", (VIP, SERVICE_PORT))

    limited.put(deny=networks("203.0.113.0/24"))

    talk(near, far)


def test_all_clients_of_both_families_share_what_a_service_takes(limited: Limited) -> None:
    v4, v6 = echo_socket(limited.network, SERVER), echo_socket(limited.network, SERVER_V6)
    limited.put(limits=Limits(new_per_second=1, burst=60))

    limited.ask(VIP, 40)
    limited.ask(VIP_V6, 40)

    # While this runs a few more become allowed: one a second.
    passed = arrived(v4), arrived(v6)
    assert passed[0] == 40
    assert 20 <= passed[1] < 30
    assert limited.refused == {"new_per_second": 80 - sum(passed)}


@FAMILIES
def test_each_client_has_a_rate_of_its_own(
    limited: Limited, vip: str, server: str, client: str, neighbour: str
) -> None:
    echo = echo_socket(limited.network, server)
    length = 24 if vip == VIP else 64
    run(f"ip addr add {neighbour}/{length} dev eth0 nodad", limited.network.made["client"])
    limits = Limits(new_per_second_per_client=1, burst_per_client=20)

    def passed(limits: Limits) -> int:
        limited.put(limits=limits)
        limited.ask(vip, 30, source=client)
        limited.ask(vip, 30, source=neighbour)
        return arrived(echo)

    assert 40 <= passed(replace(limits, netmask6=128)) < 50
    assert limited.refused.keys() == {"new_per_second_per_client"}
    assert 20 <= passed(replace(limits, netmask=24, netmask6=64)) < 30


@FAMILIES
def test_client_has_so_many_connections_and_another_when_one_is_over(
    limited: Limited, vip: str, server: str, client: str, neighbour: str
) -> None:
    network = limited.network
    length = 24 if vip == VIP else 64
    listener = network.listener("server", server, SERVER_PORT)
    limited.put(limits=Limits(connections_per_client=2, netmask6=128))
    pairs = [network.connection(listener, "client", (vip, SERVICE_PORT)) for _ in range(2)]
    run(f"ip addr add {neighbour}/{length} dev eth0 nodad", network.made["client"])

    def connects(source: str) -> bool:
        asking = network.open_socket("client", family_of(vip), socket.SOCK_STREAM)
        asking.settimeout(SILENCE_S)
        asking.bind((source, 0))
        try:
            asking.connect((vip, SERVICE_PORT))
        except TimeoutError:
            return False
        network.keep(listener.accept()[0])
        return True

    assert not connects(client)
    assert limited.refused == {"connections_per_client": 1}
    assert connects(neighbour)
    for near, far in pairs:
        talk(near, far)

    near, far = pairs.pop()
    near.close()
    far.close()
    until(lambda: connects(client), "a connection in place of the one that is over")
    assert not connects(client)


@FAMILIES
def test_who_cannot_be_remembered_any_more_is_not_limited(
    limited: Limited,
    vip: str,
    server: str,
    client: str,
    neighbour: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Addresses can be forged, and whoever forges them must not shut others out."""
    monkeypatch.setattr(service_limits, "CLIENTS_MAX", 1)
    echo = echo_socket(limited.network, server)
    length = 24 if vip == VIP else 64
    run(f"ip addr add {neighbour}/{length} dev eth0 nodad", limited.network.made["client"])
    limited.put(
        limits=Limits(
            new_per_second_per_client=1,
            burst_per_client=5,
            connections_per_client=5,
            netmask6=128,
        )
    )
    limited.ask(vip, 20, source=client)
    assert arrived(echo) < 10

    limited.ask(vip, 20, source=neighbour)
    assert arrived(echo) == 20


def test_rotation_leaves_counts_and_buckets_as_they_are(limited: Limited) -> None:
    echo = echo_socket(limited.network, SERVER)
    servers = tuple(
        replace(CONFIGURATION.services[0].servers[0], name=name, port=port)
        for name, port in (("a", SERVER_PORT), ("b", 8081))
    )
    both = {"echo": tuple(map(InRotation, "ab"))}
    limited.put(
        both,
        servers=servers,
        listens=CONFIGURATION.services[0].listens[:2],
        limits=Limits(1, 10, 1, 10, 10),
        deny=networks("192.0.2.0/24"),
        persistence=Persistence(60.0),
        scheduler=Scheduler.RR,
    )
    limited.ask(VIP, 20)
    dropped = limited.refused["new_per_second_per_client"]
    assert dropped >= 8

    alone = {"echo": (InRotation("a"),)}
    assert limited.rotate(both, alone)
    limited.ask(VIP, 5)

    assert limited.refused["new_per_second_per_client"] >= dropped + 3
    assert arrived(echo) + limited.refused.total() >= 15


def test_count_of_a_limit_goes_on_when_it_gets_another_value(limited: Limited) -> None:
    limited.put(limits=Limits(1, 1))
    limited.ask(VIP, 10)
    before = limited.refused["new_per_second"]
    assert before >= 8

    limited.put(limits=Limits(2, 2), deny=networks("192.0.2.0/24"))
    assert limited.refused["new_per_second"] == before
    limited.put()
    assert limited.refused == {}
    listing = run("nft list table inet hanat", limited.router.namespace)
    assert "limits/" not in listing


def test_counts_go_on_when_the_rules_are_installed_anew_beside_known_clients(
    limited: Limited,
) -> None:
    """Somebody changed them; sets of clients stay then, and what is counted, too."""
    others = {"limits": Limits(1, 2, 1, 2, 2), "persistence": Persistence(600.0)}
    limited.put(None, deny=networks("203.0.113.0/24"), **others)
    limited.ask(VIP, 3)
    assert limited.refused == {"deny": 3}

    limited.replace()

    assert limited.refused == {"deny": 3}
    limited.ask(VIP, 2)
    assert limited.refused == {"deny": 5}
    limited.put(None, **others)
    assert limited.refused.total() == 0


def _ask(asking: socket.socket, vip: str) -> None:
    asking.connect((vip, SERVICE_PORT))
    asking.send(b"hanat")
    asking.recv(1)
