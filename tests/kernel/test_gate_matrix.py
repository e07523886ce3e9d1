"""Every kind of packet against every state of the gate, both families (docs/lease.md)."""

from __future__ import annotations

import pytest

from tests.kernel.conftest import gates_of_all_kinds
from tests.kernel.gate_cells import Addresses, Cells
from tests.kernel.network import (
    CLIENT,
    CLIENT_V6,
    INSIDE_VIP,
    INSIDE_VIP_V6,
    SERVER,
    SERVER_V6,
    VIP,
    VIP_V6,
    Network,
)

pytestmark = [pytest.mark.kernel, gates_of_all_kinds]

V4 = Addresses(CLIENT, SERVER, VIP, INSIDE_VIP, own="203.0.113.11")
V6 = Addresses(CLIENT_V6, SERVER_V6, VIP_V6, INSIDE_VIP_V6, own="2001:db8:1::11")
FLOWS = (
    "flow in",
    "flow in, fragments",
    "flow out",
    "flow out, fragments",
    "flow out and in again",
)

# What must hold, by the right a router has. Its own addresses are nobody's business.
OWN = (
    "own address, in",
    "own address, out",
    "own address, echo",
    "own link-local address",
    "neighbour own",
)
CARRIED = (
    *(f"established {flow}" for flow in FLOWS),
    "error to the client",
    "error to the server",
)
ANSWERED = (
    *(f"new {flow}" for flow in FLOWS),
    "established delivery",
    "new delivery",
    "neighbour outside",
    "neighbour inside",
)
GRANTED = {"answers": (*OWN, *CARRIED, *ANSWERED), "carries": (*OWN, *CARRIED), "neither": OWN}


@pytest.mark.parametrize("family", [V4, V6], ids=["v4", "v6"])
@pytest.mark.parametrize("right", GRANTED)
def test_a_right_lets_pass_what_it_says_and_nothing_else(
    network: Network, right: str, family: Addresses
) -> None:
    network.r1.take_over()
    cells = Cells(network, family)
    with network.r1.entered() as router:
        if right == "carries":
            router.gate.withdraw()
        elif right == "neither":
            router.gate.shut()

    expected = {name: name in GRANTED[right] for name in (*OWN, *CARRIED, *ANSWERED)}

    assert cells.ask(expected) == expected
