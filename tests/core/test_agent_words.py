"""What agents say of servers, and what people are told of them."""

from __future__ import annotations

from hanat.core.health_effects import Propose
from hanat.core.probing import Operational
from hanat.core.schedulers import InRotation
from hanat.core.server_facts import Administrative, Mode
from hanat.core.server_history import changes_of
from hanat.core.server_records import (
    mode_record,
    weight_record,
)
from tests.core.health_bench import (
    ME,
    WEB1,
    WEB2,
    Bench,
    of,
    web,
)


def test_weight_and_mode_that_an_agent_says_are_taken_from_the_holders_probe() -> None:
    b = Bench(web(1, 2))
    b.hold()
    b.all_up(1, 2)
    b.commit(b.sees(1, Operational.UP, percent=50, mode="drain"))
    assert b.clients == ["web2"]
    assert b.administrative(WEB1).by.startswith("check tcp 10.11.12.21:80")
    b.commit(b.sees(1, Operational.UP, percent=50, mode="ready"))
    assert b.clients == ["web1", "web2"]
    assert of(Propose, b.sees(1, Operational.UP, percent=50, mode="ready")) == []  # as before
    assert of(Propose, b.sees(2, Operational.UP, tenure=None, percent=10)) == []  # not the holder


def test_agent_does_not_undo_what_an_operator_did() -> None:
    b = Bench(web(1, 2))
    b.hold()
    b.all_up(1, 2)
    b.record(mode_record(WEB1, Administrative(Mode.MAINT, "op")))
    b.commit(b.sees(1, Operational.UP, mode="ready"))
    b.commit(b.sees(1, Operational.UP, mode="drain"))
    assert b.administrative(WEB1).mode is Mode.MAINT
    b.record(weight_record(WEB2, 0.5, by="op", at_s=0.0))
    b.commit(b.sees(2, Operational.UP, percent=100))
    b.record(weight_record(WEB2, 0.5, by="op", at_s=0.0))
    b.commit(b.sees(2, Operational.UP, percent=100))  # said before: the operator's word is newer
    assert b.rotations["web"] == (InRotation("web2", 50),)  # in hundredths
    assert of(Propose, b.sees(2, Operational.UP, percent=10)) != []


def test_changes_of_servers_are_told_in_words() -> None:
    b = Bench(web(1, 2))
    b.hold()
    b.all_up(1, 2)
    b.commit(b.sees(1, Operational.DOWN))
    until = 1_000_000_000.0
    drain = Administrative(Mode.DRAIN, "op", "new disk", since_s=5.0, until_s=until)
    b.record(mode_record(WEB2, drain))
    b.record(weight_record(WEB2, 0.5, by="op", at_s=7.0))
    told = changes_of(b.state.changes, b.health.users, {ME: "r1"})
    assert [change.what for change in told] == ["verdict"] * 3 + ["mode", "weight"]
    assert told[2].servers == ("web/web1",)
    assert told[2].text.endswith(
        "(web/web1) is down: connection refused, 3 times in a row, says r1"
    )
    assert told[3].text == (
        "web/web2 gets no new clients (drain), by op: new disk (until 2001-09-09T01:46:40+00:00)"
    )
    assert told[4].text == "web/web2 gets 50 % of its weight, by op"
    assert [change.at_s for change in told[3:]] == [5.0, 7.0]
