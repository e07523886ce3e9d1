"""What the paths answer that only read."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from hanat.core.probing import Operational
from hanat.core.rotation import ServiceState
from hanat.core.service_view import Condition, Datagrams
from hanat.core.status import Role, VipStatus
from tests.api.conftest import Served
from tests.api.helpers import BACKUP, HOLDER, WEB, WEB1, WEB2, ask


async def test_status_is_the_snapshot(served: Served) -> None:
    expected = json.loads(json.dumps(HOLDER.to_document()))
    answer = await ask(served.unix, "/v1/status")
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("application/json")
    assert answer.document == expected


@pytest.mark.parametrize(
    "path",
    [
        "/v1/status", "/v1/config", "/v1/history", "/v1/connections", "/v1/nothing", "//livez",
        "/v1/services", "/v1/services/web", "/v1/services/web/servers/web1",
    ],
)  # fmt: skip
async def test_over_tcp_only_health_and_metrics_are_told(served: Served, path: str) -> None:
    answer = await ask(served.tcp, path)
    assert (answer.status, answer.document["exit_code"]) == (403, 4)
    assert "/metrics; send the request over the Unix socket" in answer.document["error"]
    assert served.backend.wanted == []


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.1:7480", "[::1]:7480", "localhost:80", "R1.Example.com", "r1."]
)
async def test_host_may_be_an_address_or_a_name_of_this_node(served: Served, host: str) -> None:
    answer = await ask(served.tcp, "/livez", headers={"Host": host})
    assert answer.status == 200


@pytest.mark.parametrize("host", ["evil.example", "r1.example.com.evil", "r1:x", "[r1]", "@r1"])
async def test_host_of_another_name_is_refused(served: Served, host: str) -> None:
    """A page whose name stands for our address reads nothing."""
    answer = await ask(served.tcp, "/livez", headers={"Host": host})
    assert answer.status in {400, 421}
    assert (await ask(served.unix, "/livez", headers={"Host": host})).status in {200, 400}


async def test_status_follows_the_backend(served: Served) -> None:
    await ask(served.unix, "/v1/status")
    served.backend.current = BACKUP
    answer = await ask(served.unix, "/v1/status")
    assert answer.document["role"] == "BACKUP"


async def test_livez_answers_as_long_as_the_loop_turns(served: Served) -> None:
    answer = await ask(served.tcp, "/livez")
    assert (answer.status, answer.document) == (200, {"alive": True})


async def test_a_node_in_quorum_with_leader_and_configuration_is_ready(served: Served) -> None:
    answer = await ask(served.tcp, "/readyz")
    assert (answer.status, answer.document) == (200, {"ready": True, "reasons": []})


async def test_readyz_names_everything_that_is_missing(served: Served) -> None:
    served.backend.current = replace(BACKUP, quorum=False, leader=None, revision=0)
    answer = await ask(served.tcp, "/readyz")
    assert answer.status == 503
    assert answer.document["ready"] is False
    assert answer.document["reasons"] == [
        "not in a quorum: less than a majority of the nodes is connected",
        "no leader known",
        "no configuration in force yet",
    ]


@pytest.mark.parametrize("role", Role)
async def test_leader_is_200_on_the_active_node_only(served: Served, role: Role) -> None:
    served.backend.current = replace(HOLDER, role=role, holder="r1")
    answer = await ask(served.tcp, "/leader")
    assert answer.status == (200 if role is Role.ACTIVE else 503)
    assert answer.document["holder"] == "r1"


@pytest.mark.parametrize("role", Role)
async def test_standby_is_200_on_a_ready_backup_only(served: Served, role: Role) -> None:
    served.backend.current = replace(HOLDER, role=role)
    answer = await ask(served.tcp, "/standby")
    assert answer.status == (200 if role is Role.BACKUP else 503)


async def test_a_backup_that_is_not_ready_is_no_standby(served: Served) -> None:
    served.backend.current = replace(BACKUP, quorum=False)
    answer = await ask(served.tcp, "/standby")
    assert answer.status == 503
    assert "quorum" in answer.document["reasons"][0]


async def test_probes_answer_head_without_a_body(served: Served) -> None:
    answer = await ask(served.tcp, "/leader", method="HEAD")
    assert (answer.status, answer.body) == (200, "")


async def test_metrics_of_the_holder_say_what_the_status_says(served: Served) -> None:
    found = await scrape(served)
    assert found == found | {
        'hanat_build_info{version="0.1.0"}': 1,
        "hanat_is_leader{}": 1,
        'hanat_role{role="ACTIVE"}': 1,
        'hanat_role{role="BACKUP"}': 0,
        "hanat_raft_term{}": 7,
        "hanat_raft_commit_index{}": 55,
        "hanat_raft_applied_index{}": 54,
        "hanat_config_revision{}": 3,
        'hanat_vip_owned{vip="public"}': 1,
        'hanat_vip_owned{vip="private"}': 1,
        "hanat_lease_remaining_seconds{}": 0.75,
        "hanat_vip_restored_total{}": 8,
        'hanat_drift_repairs_total{kind="ruleset"}': 3,
        'hanat_drift_repairs_total{kind="sysctl"}': 0,
        'hanat_leader_transitions_total{reason="elected"}': 2,
        'hanat_leader_transitions_total{reason="lease_expired"}': 1,
        'hanat_loop_late_seconds_bucket{le="0.001"}': 7,
        'hanat_loop_late_seconds_bucket{le="0.1"}': 9,
        'hanat_loop_late_seconds_bucket{le="+Inf"}': 10,
        "hanat_loop_late_seconds_count{}": 10,
        "hanat_loop_late_seconds_sum{}": 0.5,
        "hanat_loop_late_seconds_max{}": 0.25,
        'hanat_log_commit_seconds_bucket{le="0.005"}': 99,
        "hanat_log_commit_seconds_count{}": 100,
        "hanat_log_commit_seconds_max{}": 0.02,
        "hanat_conn_captured_total{}": 100,
        "hanat_conn_replicated_total{}": 90,
        "hanat_conn_pending{}": 10,
        "hanat_conn_installed_total{}": 40,
        'hanat_conn_dropped_total{reason="clashed"}': 1,
        'hanat_conn_dropped_total{reason="failed"}': 2,
        'hanat_conn_dropped_total{reason="stalled"}': 3,
        "hanat_conn_overruns_total{}": 4,
        "hanat_conn_replication_lag_seconds{}": 0.02,
        "hanat_conntrack_entries{}": 123,
        'hanat_service_connections{service="web"}': 5,
        'hanat_service_up{service="web"}': 1,
        'hanat_service_servers{service="web",state="serving"}': 1,
        'hanat_service_servers{service="web",state="down"}': 1,
        'hanat_server_weight{server="web1",service="web"}': 2,
        'hanat_server_in_rotation{server="web1",service="web"}': 1,
        'hanat_server_in_rotation{server="web2",service="web"}': 0,
        'hanat_server_up{server="web1",service="web"}': 1,
        'hanat_server_up{server="web2",service="web"}': 0,
        'hanat_server_check_latency_seconds{server="web1",service="web"}': 0.25,
        'hanat_server_connections{server="web2",service="web"}': 2,
        'hanat_peer_connected{peer="r2"}': 1,
        'hanat_peer_connected{peer="r3"}': 0,
        'hanat_peer_refused_total{transport="raft"}': 5,
        'hanat_peer_refused_total{transport="mesh"}': 6,
        'hanat_node_eligible{reason=""}': 1,
        "hanat_node_handicap{}": 0,
        "hanat_announcements_refused_total{}": 0,
    }
    assert found["process_resident_memory_bytes{}"] > 0
    assert found["process_cpu_seconds_total{}"] > 0
    assert not [name for name in found if "gc" in name]


async def test_metrics_say_what_services_and_servers_carried(served: Served) -> None:
    found = await scrape(served)
    assert found == found | {
        'hanat_service_connections_opened_total{service="web"}': 7,
        'hanat_service_packets_in_total{service="web"}': 70,
        'hanat_service_bytes_in_total{service="web"}': 7000,
        'hanat_service_packets_out_total{service="web"}': 60,
        'hanat_service_bytes_out_total{service="web"}': 1_234_567,
        'hanat_server_connections_opened_total{server="web1",service="web"}': 5,
        'hanat_server_bytes_out_total{server="web1",service="web"}': 100_000,
        'hanat_server_bytes_out_total{server="web2",service="web"}': 0,
        "hanat_totals_age_seconds{}": 0.25,
    }


async def test_metrics_say_what_limits_refused(served: Served) -> None:
    bounded = replace(WEB1, max_conn=3, times_full=2)
    served.backend.shown = (replace(WEB, servers=(bounded, WEB2)),)
    found = await scrape(served)
    assert {name: value for name, value in found.items() if "server_full" in name} == {
        'hanat_server_full_total{server="web1",service="web"}': 2
    }
    assert found['hanat_service_refused_total{limit="deny",service="web"}'] == 7
    assert found['hanat_service_refused_total{limit="new_per_second",service="web"}'] == 120


async def test_metrics_say_how_many_datagrams_had_no_flow(served: Served) -> None:
    counted = replace(WEB1, datagrams=Datagrams(7, 5))
    served.backend.shown = (replace(WEB, servers=(counted, WEB2)),)
    found = await scrape(served)

    assert {name: value for name, value in found.items() if "datagrams" in name} == {
        'hanat_server_datagrams_total{server="web1",service="web",way="to_server"}': 7,
        'hanat_server_datagrams_total{server="web1",service="web",way="to_clients"}': 5,
    }


async def test_metrics_say_nothing_of_checks_that_say_nothing(served: Served) -> None:
    unchecked = replace(WEB1, checks=())
    unknown = replace(
        WEB2, operational=Operational.UNKNOWN, condition=Condition.UNKNOWN, checks=WEB2.checks
    )
    served.backend.shown = (
        replace(WEB, state=ServiceState.PANIC, servers=(unchecked, unknown)),
        replace(WEB, name="off", state=ServiceState.DOWN, servers=()),
    )
    found = await scrape(served)
    assert found['hanat_service_up{service="web"}'] == 0
    assert found['hanat_service_up{service="off"}'] == 0
    assert found['hanat_service_servers{service="off",state="serving"}'] == 0
    assert found['hanat_service_servers{service="web",state="unknown"}'] == 1
    assert not [name for name in found if name.startswith(("hanat_server_up", "hanat_server_ch"))]


async def test_vip_of_two_addresses_is_owned_when_both_are_there(served: Served) -> None:
    both = (
        VipStatus("public", "203.0.113.10/24", "eth0", held=True),
        VipStatus("public", "2001:db8:1::10/64", "eth0", held=False),
    )
    served.backend.current = replace(HOLDER, vips=both)
    text = (await ask(served.tcp, "/metrics")).body
    lines = [line for line in text.splitlines() if line.startswith("hanat_vip_owned")]
    assert lines == ['hanat_vip_owned{vip="public"} 0.0']


async def test_bytes_that_nobody_counts_are_absent_and_not_0(served: Served) -> None:
    assert WEB.figures is not None
    blind = replace(WEB.figures, has_bytes=False)
    served.backend.shown = (
        replace(WEB, figures=blind),
        replace(WEB, name="new", figures=None, servers=()),
    )
    found = await scrape(served)
    sums = ("hanat_service_connections_", "hanat_service_bytes_", "hanat_service_packets_")
    assert {name for name in found if name.startswith(sums) and "_total" in name} == {
        'hanat_service_connections_opened_total{service="web"}'
    }
    document = (await ask(served.unix, "/v1/services")).document["services"]
    assert document[1]["totals"] is None
    assert document[0]["totals"] == {
        "connections": 7,
        "connections_per_s": 12.34,
        **dict.fromkeys(("packets_in", "bytes_in", "packets_out", "bytes_out")),
        "since": "2023-11-14T22:13:20+00:00",
        "age_s": 0.2,
    }


async def test_metrics_of_a_backup_own_nothing_and_have_no_lag(served: Served) -> None:
    served.backend.current = replace(
        BACKUP, unsafe=("no carrier on eth0",), hindrances=("eth1: silent",), handicap=64
    )
    found = await scrape(served)
    assert found['hanat_vip_owned{vip="public"}'] == 0
    assert found["hanat_lease_remaining_seconds{}"] == 0
    assert found["hanat_is_leader{}"] == 0
    assert found['hanat_node_eligible{reason="no carrier on eth0"}'] == 0
    assert 'hanat_node_eligible{reason=""}' not in found
    assert found['hanat_node_hindered{reason="eth1: silent"}'] == 1
    assert found["hanat_node_handicap{}"] == 64
    assert "hanat_conn_replication_lag_seconds{}" not in found


async def test_a_label_may_hold_any_character(served: Served) -> None:
    ugly = 'eth0: "down"\n\\'
    served.backend.current = replace(HOLDER, unsafe=(ugly,))
    answer = await ask(served.tcp, "/metrics")
    reasons = [
        sample.labels["reason"]
        for family in text_string_to_metric_families(answer.body)
        for sample in family.samples
        if sample.name == "hanat_node_eligible"
    ]
    assert reasons == [ugly]


async def scrape(served: Served) -> dict[str, float]:
    """Return every sample by name and sorted labels, read by Prometheus' own parser."""
    answer = await ask(served.tcp, "/metrics")
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    samples = [
        sample
        for family in text_string_to_metric_families(answer.body)
        for sample in family.samples
    ]
    keys = [f"{sample.name}{{{labels_of(sample.labels)}}}" for sample in samples]
    assert len(keys) == len(set(keys)), "a sample twice"
    return {key: sample.value for key, sample in zip(keys, samples, strict=True)}


def labels_of(labels: dict[str, str]) -> str:
    return ",".join(f'{key}="{value}"' for key, value in sorted(labels.items()))


async def test_history_is_all_of_it_or_the_newest(served: Served) -> None:
    answer = await ask(served.unix, "/v1/history")
    assert [event["term"] for event in answer.document["events"]] == [1, 2, 3]
    answer = await ask(served.unix, "/v1/history?limit=2")
    assert [event["term"] for event in answer.document["events"]] == [2, 3]
    assert [change["what"] for change in answer.document["servers"]] == ["mode", "verdict"]


@pytest.mark.parametrize("query", ["limit=-1", "limit=x", "limit=1&limit=2", "client=10.0.0.1"])
async def test_history_with_another_parameter_is_refused(served: Served, query: str) -> None:
    answer = await ask(served.unix, f"/v1/history?{query}")
    assert (answer.status, answer.document["exit_code"]) == (400, 2)
