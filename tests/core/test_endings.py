"""Which connections end with a server, and how; what their ends meet is in tests/kernel."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hanat.core.configuration import OnServerDown, RealServer
from hanat.core.endings import (
    Ending,
    Endings,
    ending_of,
    fate,
    from_document,
    to_document,
)
from hanat.core.flows import Flow, with_reset
from tests.contract.flows import SCTP, TCP, UDP, inbound, outbound
from tests.core.examples import MEDIA, PUBLIC, PUBLIC_V6, WEB

KEEP, EXPIRE, RESET = OnServerDown.KEEP, OnServerDown.EXPIRE, OnServerDown.RESET
SYN_SENT, SYN_RECV, TIME_WAIT, CLOSE = 1, 2, 7, 8
ELSEWHERE = frozenset({PUBLIC.packed})


def tcp(state: int) -> Flow:
    return replace(inbound(), tcp_state=state)


@pytest.mark.parametrize(
    ("policy", "flow", "expected"),
    [
        (None, inbound(), RESET),
        (None, inbound(version=6), RESET),
        (None, inbound(protocol=UDP), EXPIRE),
        (None, inbound(protocol=SCTP), EXPIRE),
        (RESET, inbound(), RESET),
        (RESET, inbound(protocol=UDP), EXPIRE),
        (RESET, tcp(SYN_SENT), EXPIRE),  # the client sends it again
        (RESET, tcp(SYN_RECV), RESET),
        (RESET, tcp(TIME_WAIT), KEEP),
        (RESET, tcp(CLOSE), KEEP),
        (EXPIRE, tcp(CLOSE), KEEP),
        (EXPIRE, inbound(), EXPIRE),
        (EXPIRE, inbound(protocol=UDP), EXPIRE),
        (KEEP, inbound(), KEEP),
        (KEEP, inbound(protocol=UDP), KEEP),
    ],
)
def test_what_becomes_of_a_connection(
    policy: OnServerDown | None, flow: Flow, expected: OnServerDown
) -> None:
    assert fate(policy, flow.to_record(), ELSEWHERE) is expected


@pytest.mark.parametrize("policy", [None, RESET, EXPIRE])
def test_what_is_to_be_reset_is_left_alone(policy: OnServerDown | None) -> None:
    assert fate(policy, with_reset(inbound().to_record()), ELSEWHERE) is KEEP


def test_program_of_this_machine_is_not_reset() -> None:
    local = frozenset({inbound().original.source.packed})

    assert fate(RESET, inbound().to_record(), local) is EXPIRE
    assert fate(KEEP, inbound().to_record(), local) is KEEP


def test_ending_is_of_the_family_of_its_server() -> None:
    four, six = ending_of(WEB, WEB.servers[0]), ending_of(WEB, WEB.servers[3], EXPIRE)

    assert four == Ending("web", ((TCP, PUBLIC.packed, 80, 80),), four.server, 8080, None)
    assert six.listens == ((TCP, PUBLIC_V6.packed, 80, 80),)
    assert six.policy is EXPIRE
    assert ending_of(replace(WEB, on_server_down=KEEP), WEB.servers[0]).policy is KEEP


def test_server_without_a_port_has_that_which_the_client_asked_for() -> None:
    endings = Endings([ending_of(MEDIA, MEDIA.servers[0])], ELSEWHERE)

    def media(port: int, server_port: int, protocol: int = UDP) -> bytes:
        flow = inbound(protocol=protocol)
        original = replace(flow.original, destination_port=port)
        reply = replace(flow.reply, source_port=server_port)
        return replace(flow, original=original, reply=reply).to_record()

    assert endings.find(media(5007, 5007)) == (0, EXPIRE)
    assert endings.find(media(5000, 5000, TCP)) == (0, RESET)
    assert endings.find(media(5007, 5008)) is None
    assert endings.find(media(5100, 5100)) is None
    assert endings.find(media(5001, 5001, TCP)) is None


def test_only_what_was_translated_to_the_server_ends() -> None:
    server = RealServer("one", ip_address("10.11.12.101"), 8080, 1)
    endings = Endings([ending_of(WEB, server)], frozenset())

    assert endings.find(inbound().to_record()) == (0, RESET)
    assert endings.find(outbound().to_record()) is None
    assert endings.find(replace(inbound(), status=0).to_record()) is None
    moved = replace(inbound(), reply=replace(inbound().reply, source_port=8081))
    assert endings.find(moved.to_record()) is None


def test_nothing_is_looked_for_where_everything_is_kept() -> None:
    assert not Endings([ending_of(WEB, server, KEEP) for server in WEB.servers], frozenset())


_listens = st.tuples(
    st.sampled_from([TCP, UDP]),
    st.sampled_from([ip_address("203.0.113.10").packed, ip_address("203.0.113.11").packed]),
    st.integers(1, 9),
    st.integers(0, 4),
).map(lambda one: (*one[:3], one[2] + one[3]))
_servers = st.sampled_from([ip_address("10.11.12.101").packed, ip_address("10.11.12.102").packed])
_endings = st.builds(
    Ending,
    service=st.sampled_from(["a", "b"]),
    listens=st.lists(_listens, max_size=3).map(tuple),
    server=_servers,
    port=st.integers(0, 9),
    policy=st.sampled_from([None, *OnServerDown]),
)


@st.composite
def _flows(draw: st.DrawFn) -> bytes:
    flow = replace(inbound(), protocol=draw(st.sampled_from([TCP, UDP])))
    original = replace(
        flow.original,
        destination=ip_address(f"203.0.113.{draw(st.integers(10, 11))}"),
        destination_port=draw(st.integers(1, 9)),
    )
    reply = replace(
        flow.reply,
        source=ip_address(f"10.11.12.{draw(st.integers(101, 102))}"),
        source_port=draw(st.integers(1, 9)),
    )
    return replace(flow, original=original, reply=reply).to_record()


@given(st.lists(_endings, max_size=8), st.lists(_flows(), max_size=30))
def test_flows_are_found_as_by_looking_at_one_ending_after_the_other(
    endings: list[Ending], records: list[bytes]
) -> None:
    made = Endings(endings, frozenset())
    again = Endings(from_document(json.loads(json.dumps(to_document(endings)))), frozenset())
    for record in records:
        fitting = [i for i in range(len(endings)) if _is_of(endings[i], record)]
        found = made.find(record)
        assert again.find(record) == found
        # Listens of a cluster do not overlap; here they may, and then either will do.
        fates = {i: fate(endings[i].policy, record, frozenset()) for i in fitting}
        ended = {i: what for i, what in fates.items() if what is not KEEP}
        if found is None:
            assert not ended
        else:
            assert ended[found[0]] is found[1]


def _is_of(ending: Ending, record: bytes) -> bool:
    flow = Flow.from_record(record)
    port = flow.original.destination_port
    return ending.server == flow.reply.source.packed and any(
        (protocol, address) == (flow.protocol, flow.original.destination.packed)
        and first <= port <= last
        and flow.reply.source_port in ({ending.port} if ending.port else {port})
        for protocol, address, first, last in ending.listens
    )
