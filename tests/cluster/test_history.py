"""Why did it fail over? What three real daemons tell of it afterwards."""

from __future__ import annotations

from typing import Any

import pytest

from chaos.lab import node_api
from chaos.lab.lab import Lab
from tests.cluster.conftest import Echo, replicated
from tests.cluster.test_takeover import _other_holder, switch

pytestmark = pytest.mark.cluster


def flows(lab: Lab, name: str) -> int:
    status = lab.nodes[name].status()
    return 0 if status is None else int(status["flows"]["flows"])


def test_each_change_of_holder_is_told_by_both_sides_on_all_nodes(lab: Lab, inbound: Echo) -> None:
    first = lab.wait_for_holder()
    lab.wait_for(lambda: replicated(lab), 5, "replicated flows")
    second = next(name for name in lab.nodes if name != first)
    begun = told(lab, first, "took over", first)
    assert (begun["why"], begun["previous"], begun["term"] > 0) == ("first", None, True)
    assert begun["announcements"] >= 4  # two frames for each of two addresses

    # What the event tells is what its worker told last.
    lab.wait_for(lambda: flows(lab, second), 5, "a flow")
    switch(lab, second)
    taken = told(lab, second, "took over", second)
    assert (taken["why"], taken["previous"]) == ("handed_over", first)
    assert taken["flows"] >= 1
    given = told(lab, second, "gave up", first)
    assert (given["why"], given["term"]) == ("switchover", begun["term"])

    lab.wait_for_holder()
    lab.wait_for(lambda: replicated(lab), 5, "replicated flows")
    lab.set_carrier(second, "public", up=False)
    third = lab.wait_for(lambda: _other_holder(lab, second), 10, "another holder")
    lost = told(lab, third, "gave up", second)
    assert (lost["why"], lost["found"]) == ("hindered", "public: no carrier")
    assert told(lab, third, "took over", third)["previous"] == second
    lab.set_carrier(second, "public", up=True)
    inbound.exchange()

    lab.wait_for(lambda: len({str(events(lab, n)) for n in lab.nodes}) == 1, 10, "one history")
    asked = lab.exec_in(second, [*lab.hanat, "vip", "who", "--at", taken["at"], *at(lab, second)])
    assert asked.stdout == f"{second}\n"
    page = lab.exec_in(third, [*lab.hanat, "history", *at(lab, third)]).stdout
    assert f"took over: {first} handed over; nobody answered for about" in page


def test_history_tells_a_dead_daemon_from_a_dead_node_and_outlives_all(lab: Lab) -> None:
    first = lab.wait_for_holder()
    told(lab, first, "took over", first)
    lab.kill_daemon(first)
    second = lab.wait_for(lambda: _other_holder(lab, first), 10, "another holder")
    died = told(lab, second, "took over", second)
    assert (died["why"], died["previous"]) == ("daemon_died", first)

    lab.wait_for_holder()
    lab.kill_node(second)
    third = lab.wait_for(lambda: _other_holder(lab, second), 10, "another holder")
    silent = told(lab, third, "took over", third)
    assert (silent["why"], silent["previous"]) == ("silence", second)
    assert len(silent["silent_s"]) == 2
    assert all(age > 0.05 for age in silent["silent_s"])

    lab.start_node(second)
    holder = lab.wait_for_holder()
    # It hands over to one that has the whole log; else it can only step down.
    others = [name for name in lab.nodes if name != holder]
    lab.wait_for(lambda: all(lab.unready(n) is None for n in others), 10, "the others to be ready")
    lab.stop_node(holder)
    after = lab.wait_for(lambda: _other_holder(lab, holder), 10, "another holder")
    assert told(lab, after, "gave up", holder)["why"] == "shutdown"
    last = told(lab, after, "took over", after)
    assert (last["why"], last["previous"]) == ("handed_over", holder)

    before = events(lab, after)
    for name in lab.nodes:
        if name != holder:
            lab.stop_node(name)
    lab.start()
    assert events(lab, lab.wait_for_holder())[: len(before)] == before


def test_holder_that_died_is_not_said_to_have_been_heard_because_it_came_back(
    lab: Lab, inbound: Echo
) -> None:
    first = lab.wait_for_holder()
    lab.wait_for(lambda: replicated(lab), 5, "replicated flows")
    inbound.exchange()
    begun = told(lab, first, "took over", first)
    backup, third = (name for name in lab.nodes if name != first)
    for name in (first, backup):
        lab.kill_node(name)
    # Its voice is needed to elect the third, which stands: who started anew lacks flows.
    lab.start_node(first)
    holder = lab.wait_for_holder()
    taken = told(lab, holder, "took over", holder)
    assert (holder, taken["previous"], taken["why"]) == (third, first, "silence"), taken
    assert begun["at_s"] < taken["at_s"] - taken["without_s"] < taken["at_s"]


def test_holder_that_was_frozen_does_not_tell_that_it_held_meanwhile(lab: Lab) -> None:
    first = lab.wait_for_holder()
    begun = told(lab, first, "took over", first)
    lab.nodes[first].pause()
    second = lab.wait_for(lambda: _other_holder(lab, first), 10, "another holder")
    taken = told(lab, second, "took over", second)
    lab.nodes[first].resume()
    gone = told(lab, second, "gave up", first)
    assert gone["why"] in {"lease_expired", "leadership_lost"}
    assert gone["at_s"] <= taken["at_s"]
    assert gone["held_s"] <= taken["at_s"] - begun["at_s"]
    lab.wait_for_holder()


def events(lab: Lab, node: str) -> list[dict[str, Any]]:
    """Return the history as a node tells it."""
    code, document = node_api.request(lab.nodes[node].socket, "GET", "/v1/history")
    assert code == 200, document
    found: list[dict[str, Any]] = document["events"]
    return found


def told(lab: Lab, asked: str, what: str, by: str) -> dict[str, Any]:
    """Wait until the history ends with such an event of a node; return it."""

    def look() -> dict[str, Any] | None:
        fitting = [e for e in events(lab, asked) if (e["what"], e["node"]) == (what, by)]
        return fitting[-1] if fitting else None

    return lab.wait_for(look, 10, f"{by} to tell that it {what}")


def at(lab: Lab, node: str) -> list[str]:
    return ["--api", f"unix:{lab.nodes[node].socket}"]
