"""One packet scheduling on real packets: each datagram by itself, and no entry for any."""

from __future__ import annotations

import re
import socket
import struct
from collections import Counter
from ipaddress import ip_address, ip_network

import pytest

from hanat.core.configuration import (
    Forward,
    Limits,
    Listen,
    Protocol,
    RealServer,
    Scheduler,
    Sorry,
    Transit,
    Unavailable,
)
from hanat.core.server_facts import ServerId
from hanat.core.service_view import Datagrams
from tests.core.examples import DEVICES
from tests.gates import grant
from tests.kernel.datagrams import (
    CLIENT_PORT,
    PLANS,
    PORT,
    Lab,
    Plan,
    compute_checksums,
    counted,
    dropped,
)
from tests.kernel.namespaces import run, until
from tests.kernel.network import OWN, SERVICE_PORT, Network, echo_socket, family_of, talk
from tests.kernel.reach import give, route

pytestmark = pytest.mark.kernel

NO_CHECK = 11  # SO_NO_CHECK


@PLANS
def test_datagrams_of_one_port_are_spread_by_weight_and_answered(
    network: Network, plan: Plan
) -> None:
    lab = Lab(network, plan)

    got = Counter(lab.answered(b"%d" % n) for n in range(200))

    assert got == dict(zip(plan.places, (20, 40, 60, 80), strict=True))
    assert lab.entries() == set()
    assert lab.datagrams() == {
        ServerId("dns", f"s{n}"): Datagrams(20 * n, 20 * n) for n in range(1, 5)
    }


@PLANS
def test_rotation_leaves_the_counts_as_they_are(network: Network, plan: Plan) -> None:
    lab = Lab(network, plan)
    for _ in range(10):
        lab.answered()

    lab.without("s4")
    asked = lab.asked()

    counts = lab.datagrams()
    assert sum(one.to_server for one in counts.values()) == 11
    assert counts[ServerId("dns", "s4")] == Datagrams(4, 4)
    assert asked.place != plan.places[3]


@pytest.mark.parametrize("scheduler", [s for s in Scheduler if not s.by_counts])
@PLANS
def test_each_scheduler_chooses_for_each_datagram(
    network: Network, plan: Plan, scheduler: Scheduler
) -> None:
    lab = Lab(network, plan, scheduler=scheduler)

    got = Counter(lab.answered() for _ in range(200))

    if scheduler.by_source:  # the same client
        assert list(got.values()) == [200]
    elif scheduler is Scheduler.RANDOM:  # the least gets 20, and 4 once in 100,000 runs
        assert set(got) == set(plan.places)
    else:
        wanted = (50,) * 4 if scheduler is Scheduler.RR else (20, 40, 60, 80)
        assert got == dict(zip(plan.places, wanted, strict=True))
    assert lab.entries() == set()


@PLANS
def test_hash_of_the_port_sends_clients_to_different_servers(network: Network, plan: Plan) -> None:
    lab = Lab(network, plan, scheduler=Scheduler.MH, hash_port=True)
    clients = [lab.udp("client", plan.client, 41_000 + n) for n in range(40)]

    first = [lab.answered(near=client) for client in clients]

    assert len(set(first)) > 1
    assert [lab.answered(near=client) for client in clients] == first


@PLANS
def test_servers_without_a_port_are_asked_on_the_client_s_and_answer_from_it(
    network: Network, plan: Plan
) -> None:
    """Of a single port and of a range, beside servers that have one."""
    vip = ip_address(plan.vip)
    listens = (
        Listen(vip, Protocol.UDP, 5000, 5099),
        Listen(vip, Protocol.UDP, PORT, PORT),
    )
    servers = tuple(
        RealServer(f"s{n}", ip_address(address), None, weight=1)
        for n, address in enumerate(plan.servers)
    )
    lab = Lab(network, plan, listens=listens, servers=servers)
    ports = (PORT, 5000, 5042, 5099)
    lab.servers = {
        (address, port): lab.udp("server", address, port)
        for address in plan.servers
        for port in ports
    }

    for port in ports:
        got = Counter(lab.answered(port=port) for _ in range(8))
        assert got.keys() <= {(address, port) for address in plan.servers}
        assert set(got.values()) == {2}
    assert lab.entries() == set()


@PLANS
def test_server_that_leaves_the_rotation_gets_no_further_datagram(
    network: Network, plan: Plan
) -> None:
    lab = Lab(network, plan)
    for _ in range(7):
        lab.answered()

    lab.without("s4")
    assert Counter(lab.answered() for _ in range(60)) == dict(
        zip(plan.places[:3], (10, 20, 30), strict=True)
    )
    lab.follow({})
    assert Counter(lab.answered() for _ in range(60))[plan.places[3]] == 24


@PLANS
def test_server_that_left_the_rotation_still_answers(network: Network, plan: Plan) -> None:
    lab = Lab(network, plan)
    asked = lab.asked()

    lab.without(*(s.name for s in lab.service.servers if s.port == asked.place[1]))
    asked.far.sendto(b"late", asked.peer)

    found, peer = lab.client.recvfrom(100)
    assert (found, peer[:2]) == (b"late", (plan.vip, PORT))


@PLANS
def test_without_answers_nothing_passes_in_either_direction(network: Network, plan: Plan) -> None:
    lab = Lab(network, plan)
    lab.answered()  # so the server knows who its gateway is, of which nobody tells it then
    asked = lab.asked()
    with lab.router.entered():
        lab.router.gate.withdraw()

    with dropped(lab.router, "hanat_gate", "guarded"):
        lab.client.sendto(b"?", (plan.vip, PORT))
    with dropped(lab.router, "hanat_gate", "guarded"):
        asked.far.sendto(b"!", asked.peer)
    lab.assert_silent()

    with lab.router.entered():
        grant(lab.router.gate, DEVICES.values(), answers_s=60.0, carries_s=60.0)
    asked.far.sendto(b"!", asked.peer)
    assert lab.client.recv(10) == b"!"


@PLANS
def test_new_holder_goes_on_where_the_old_one_ended(network: Network, plan: Plan) -> None:
    lab = Lab(network, plan)
    asked = lab.asked()
    with network.r1.entered():
        network.r1.gate.shut()
    network.pull(network.r1)

    network.r2.take_over()
    asked.far.sendto(b"!", asked.peer)

    found, peer = lab.client.recvfrom(10)
    assert (found, peer[:2]) == (b"!", (plan.vip, PORT))
    assert len({lab.answered() for _ in range(20)}) == 4


@PLANS
def test_other_services_go_by_flows(network: Network, plan: Plan) -> None:
    lab = Lab(network, plan)
    echo = echo_socket(network, plan.servers[0])
    near = lab.udp("client", plan.client, 40_080)
    near.connect((plan.vip, SERVICE_PORT))
    for _ in range(3):
        near.send(b"there")
        text, peer = echo.recvfrom(10)
        echo.sendto(text, peer)
        assert near.recv(10) == b"there"
        lab.answered()

    listener = network.listener("server", plan.servers[0], 8080)
    talk(*network.connection(listener, "client", (plan.vip, SERVICE_PORT)))
    version = "ipv6" if ":" in plan.vip else "ipv4"
    assert "sport=40080" in run(f"conntrack -L -p udp -f {version}", network.r1.namespace)
    assert lab.entries() == set()


# ------------------------------------------------------------------------ what may not pass


@PLANS
def test_client_with_the_address_and_port_of_a_server_is_not_believed(
    network: Network, plan: Plan
) -> None:
    """In the name of a server beside the router, and of one behind another router."""
    routed = RealServer("far", ip_address(plan.routed), 8099, weight=1)
    servers = (RealServer("s1", ip_address(plan.servers[0]), 8081, weight=1), routed)
    lab = Lab(network, plan, servers=servers)
    route(network, "r1", f"{plan.routed}/{plan.width}", plan.servers[0])
    there = OWN["r2"][1 if ":" in plan.vip else 0]
    route(network, "client", f"{there}/{plan.width}", plan.vip)
    victim = lab.udp("r2", there, 40_000)
    victim.settimeout(0)
    for address, port, table, chain in (
        (plan.servers[0], 8081, "hanat_gate", "forged"),
        (plan.routed, 8099, "hanat", "one_packet_in"),
    ):
        give(network, "client", f"{address}/{plan.width}", "lo")
        with dropped(lab.router, table, chain):
            lab.udp("client", address, port).sendto(b"forged", (there, 40_000))
        with pytest.raises(BlockingIOError):
            victim.recv(10)


@PLANS
def test_only_the_servers_ports_answer_in_the_name_of_the_service(
    network: Network, plan: Plan
) -> None:
    """Other ports of a server and other machines are masqueraded, as ever."""
    lab = Lab(network, plan)
    lab.answered()
    give(network, "server", f"{plan.beside}/{plan.width}")

    for address, port in ((plan.servers[0], 9999), (plan.beside, plan.places[0][1])):
        lab.udp("server", address, port).sendto(b"forged", (plan.client, CLIENT_PORT))
        found, peer = lab.client.recvfrom(10)
        assert (found, peer[0]) == (b"forged", plan.vip)
        assert peer[1] != PORT


@PLANS
def test_client_that_forges_an_inside_address_is_not_served(network: Network, plan: Plan) -> None:
    lab = Lab(network, plan)
    route(network, "r1", f"{plan.routed}/{plan.width}", plan.servers[0])
    for address, table, chain in (
        (plan.beside, "hanat_gate", "forged"),
        (plan.routed, "hanat", "arrival/public"),
    ):
        give(network, "client", f"{address}/{plan.width}", "lo")
        with dropped(lab.router, table, chain):
            lab.udp("client", address).sendto(b"?", (plan.vip, PORT))
    lab.assert_silent()


@PLANS
@pytest.mark.parametrize("end", ["dport", "sport"])
def test_what_another_program_leaves_untracked_opens_no_way(
    network: Network, plan: Plan, end: str
) -> None:
    """To a server's port by its own address, or from that port in anybody's name."""
    lab = Lab(network, plan)
    with lab.router.entered() as router:
        router.firewall.apply(
            "add table inet other\n"
            "add chain inet other early { type filter hook prerouting priority raw; }\n"
            f"add rule inet other early udp {end} 8081 notrack\n"
        )
    if end == "dport":
        route(network, "client", f"{plan.servers[0]}/{plan.width}", plan.vip)
        with dropped(lab.router, "hanat", "one_packet_in"):
            lab.client.sendto(b"?", plan.places[0])
    else:
        give(network, "server", f"{plan.beside}/{plan.width}")
        with dropped(lab.router, "hanat", "one_packet_in"):
            lab.udp("server", plan.beside, 8081).sendto(b"?", (plan.client, CLIENT_PORT))
    lab.assert_silent()


@PLANS
def test_denied_client_is_not_served(network: Network, plan: Plan) -> None:
    lab = Lab(network, plan, deny=(ip_network(f"{plan.client}/{plan.width}"),))
    allowed = plan.client.removesuffix("2") + "7"
    give(network, "client", f"{allowed}/{64 if ':' in allowed else 24}")

    lab.client.sendto(b"?", (plan.vip, PORT))

    until(lambda: counted(lab.router, "deny") == 1, "the datagram to be dropped")
    lab.assert_silent()
    assert lab.answered(near=lab.udp("client", allowed))


@PLANS
def test_limits_count_each_datagram(network: Network, plan: Plan) -> None:
    lab = Lab(network, plan, limits=Limits(new_per_second_per_client=1, burst_per_client=5))

    for n in range(50):
        lab.client.sendto(b"%d" % n, (plan.vip, PORT))

    reason, got = "new_per_second_per_client", 0

    def all_seen() -> bool:
        nonlocal got
        got += lab.waiting()
        return got + counted(lab.router, reason) == 50

    until(all_seen, "every datagram to arrive or to be dropped")
    assert 5 <= got < 50
    assert lab.entries() == set()


@PLANS
def test_no_server_is_told_or_not(network: Network, plan: Plan) -> None:
    """As of other services; and the sorry server answers."""
    lab = Lab(network, plan)
    lab.follow({"dns": ()})
    near = lab.udp("client", plan.client)
    near.connect((plan.vip, PORT))
    near.send(b"?")
    with pytest.raises(ConnectionRefusedError):
        near.recv(10)
    assert lab.entries() == set()


@PLANS
def test_service_that_drops_is_silent_without_servers(network: Network, plan: Plan) -> None:
    lab = Lab(network, plan, unavailable=Unavailable.DROP)
    lab.follow({"dns": ()})
    (name,) = re.findall(
        r"chain (one_packet/\S+)", run("nft list table inet hanat", lab.router.namespace)
    )

    near = lab.udp("client", plan.client)
    near.connect((plan.vip, PORT))
    with dropped(lab.router, "hanat", name):
        near.send(b"?")
    lab.follow({})
    lab.answered()  # later than an error would have come
    near.settimeout(0)
    with pytest.raises(BlockingIOError):
        near.recv(10)


@PLANS
def test_sorry_server_answers_while_nobody_else_can(network: Network, plan: Plan) -> None:
    lab = Lab(network, plan, sorry=(Sorry(ip_address(plan.servers[0]), 8099),))
    lab.servers[plan.servers[0], 8099] = lab.udp("server", plan.servers[0], 8099)
    assert lab.answered() != (plan.servers[0], 8099)

    lab.follow({"dns": ()})

    assert lab.answered() == (plan.servers[0], 8099)
    assert lab.entries() == set()
    lab.follow({})
    assert lab.answered() != (plan.servers[0], 8099)


# ------------------------------------------------------------------------ what goes by flows


@PLANS
def test_client_beside_a_server_is_answered_by_a_flow(network: Network, plan: Plan) -> None:
    lab = Lab(network, plan, sources=("public", "private"))
    give(network, "server", f"{plan.beside}/{plan.width}")
    near = lab.udp("server", plan.beside, 40_053)

    for _ in range(3):
        assert lab.answered(near=near)
    assert lab.entries()
    assert lab.answered()


@PLANS
def test_program_of_the_holder_is_answered(network: Network, plan: Plan) -> None:
    lab = Lab(network, plan)
    near = network.open_socket("r1", family_of(plan.vip), socket.SOCK_DGRAM)
    # The kernel makes the route of an IPv6 address a moment after the address.
    listing = f"ip {'-6' if ':' in plan.vip else '-4'} route show table local"
    until(lambda: f"local {plan.vip} " in run(listing, network.made["r1"]), "the local route")

    assert lab.answered(near=near)


@PLANS
def test_probe_of_the_holder_is_answered_by_the_server_itself(network: Network, plan: Plan) -> None:
    lab = Lab(network, plan)
    own = OWN["r1"][2 if ":" not in plan.vip else 3]
    near = lab.udp("r1", own)
    near.sendto(b"probe", plan.places[0])
    asked = lab.arrived(b"probe")

    asked.far.sendto(b"well", asked.peer)

    found, peer = near.recvfrom(10)
    assert (found, peer[:2]) == (b"well", plan.places[0])


@PLANS
def test_transit_asks_a_server_by_its_own_address(network: Network, plan: Plan) -> None:
    transit = Transit("vpn", (ip_network(f"{plan.strange}/{plan.width}"),))
    lab = Lab(network, plan, transits=(transit,))
    give(network, "client", f"{plan.strange}/{plan.width}", "lo")
    route(network, "r1", f"{plan.strange}/{plan.width}", plan.client)
    route(network, "client", f"{plan.servers[0]}/{plan.width}", plan.vip)
    near = lab.udp("client", plan.strange)

    near.sendto(b"vpn", plan.places[0])
    asked = lab.arrived(b"vpn")
    asked.far.sendto(b"well", asked.peer)
    found, peer = near.recvfrom(10)
    assert (found, peer[:2]) == (b"well", plan.places[0])
    assert lab.answered(near=near)


@PLANS
def test_open_router_sends_each_datagram_by_itself(network: Network, plan: Plan) -> None:
    lab = Lab(network, plan, forward=Forward.OPEN)

    got = Counter(lab.answered() for _ in range(20))

    assert got == dict(zip(plan.places, (2, 4, 6, 8), strict=True))
    assert lab.entries() == set()


# ------------------------------------------------------------------------ what is in a datagram


@PLANS
def test_fragments_arrive_whole(network: Network, plan: Plan) -> None:
    lab = Lab(network, plan)

    for size in (1, 1_473, 4_000, 30_000):
        lab.answered(bytes(n % 251 for n in range(size)))


@pytest.mark.parametrize("checked", [True, False], ids=["checksum", "none"])
@PLANS
def test_checksums_are_right_in_both_directions(
    network: Network,
    plan: Plan,
    checked: bool,  # noqa: FBT001 - of the test
) -> None:
    """Computed by the sender, and not left to a device that is none. IPv6 demands one."""
    lab = Lab(network, plan)
    for place, device in (("client", "eth0"), ("server", "eth0")):
        compute_checksums(network.made[place], device)
    if not checked and ":" not in plan.vip:
        for opened in (lab.client, *lab.servers.values()):
            opened.setsockopt(socket.SOL_SOCKET, NO_CHECK, 1)

    for n in range(300):
        lab.answered(struct.pack("!I", n * 0x9E3779B1 & 0xFFFFFFFF))


@PLANS
def test_error_of_the_router_does_not_show_the_server(network: Network, plan: Plan) -> None:
    """A datagram that ends here: the error would quote it with the address of the server."""
    lab = Lab(network, plan)
    near = lab.udp("client", plan.client)
    near.connect((plan.vip, PORT))
    level, option = (
        (socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS)
        if ":" in plan.vip
        else (socket.IPPROTO_IP, socket.IP_TTL)
    )
    near.setsockopt(level, option, 1)

    with dropped(lab.router, "hanat", "one_packet_errors"):
        near.send(b"?")
    lab.assert_silent()
