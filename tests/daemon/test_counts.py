"""Flows of real servers, counted by what has flows."""

from __future__ import annotations

from ipaddress import ip_address

from hanat.core.configuration import Listen, Protocol, RealServer, Scheduler, VirtualService
from hanat.core.flows import ServerKey
from hanat.daemon.shown_services import count_flows

VIP, ONE, TWO = (ip_address(a) for a in ("203.0.113.10", "10.11.12.101", "10.11.12.102"))


def service(name: str, first_port: int, last_port: int) -> VirtualService:
    servers = tuple(RealServer(n, a, None, 1) for n, a in (("one", ONE), ("two", TWO)))
    listen = Listen(VIP, Protocol.TCP, first_port, last_port)
    return VirtualService(name, (listen,), Scheduler.RR, servers)


def test_flows_of_a_range_come_under_its_first_port_and_count_for_the_server() -> None:
    services = (service("web", 80, 80), service("any", 1024, 65535))
    counts = {
        ServerKey(6, VIP.packed, 80, ONE.packed): 3,
        ServerKey(6, VIP.packed, 1024, ONE.packed): 4,
        ServerKey(17, VIP.packed, 80, ONE.packed): 9,
    }
    found = count_flows(services, counts)
    assert (found["web", "one"], found["any", "one"], found["any", "two"]) == (3, 4, 0)
