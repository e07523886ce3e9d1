"""How long a fault may be felt: the published bounds that a chaos run holds hanat to.

Longest time without an answer, for established flows and for new connections alike, from
the fault (or its healing) on. Each bound is what docs/performance.md has measured on two shared
cores and as much again, and what a process may wait for a core on a busy machine. Words, so that
a history can be judged for the profile it was made with:

- ``noise``: nothing should be felt, but for one needless takeover that load may cause;
- ``release``: the holder's right is given back at once, nobody waits for a lease;
- ``lease``: the others wait for the end of the lease;
- ``silent``: the holder hears nothing on one network, the others hear each other there;
- ``silent-two``: the same, and there is one other node only: devices have to be silent for 2 s;
- ``hindered``: the holder can hold and another one can do better: it has to notice;
- ``deaf``: the holder is heard but does not hear, or its frames are lost at random;
- ``server``: a server does not answer: probes have to notice, then its clients go elsewhere;
- ``rejoin``: nobody could hold; counted from the healing: nodes wait four leases, then agree;
- ``restart``: the same, and they have to start;
- ``unbounded``: hanat promises nothing; told, not judged.
"""

from __future__ import annotations

from collections.abc import Mapping

from chaos.lab.node_files import (
    AGENT_INTERVAL_MS,
    CHECK_INTERVAL_MS,
    CHECK_TIMEOUT_MS,
    FALL,
    RISE,
)

LEASE_MS: Mapping[str, float] = {"fast": 40, "default": 120, "calm": 500}
# What is left of a lease for the next beacon and its answer when as many were lost as may be.
SPARE_MS: Mapping[str, float] = {"fast": 7, "default": 11, "calm": 82}
GRACE_MS = 200.0  # established flows are carried so much longer than the lease
LATE_MS = 150.0  # for a process to get a core

# A path is silent after 15 beacons, at least 300 ms; then nodes tell each other whom they hear,
# for half of that again.
SILENT_LEASES, SILENT_MS = 8, 750.0
SILENT_TWO_MS = 2600.0  # nobody has answered, or devices have received nothing, for 2 s
# What another program does to the rules: looked at each 0.4 s; then a holder waits 0.1 s.
NOTICE_MS = 600.0
# Hosts that got no answer ask again each second (net.ipv4.neigh.*.retrans_time_ms).
REJOIN_MS = 2500.0
RESTART_MS = 6000.0  # three daemons load at once on two cores, 1 to 2 s; then 500 ms of silence
UNBOUNDED_MS = float("inf")

# The checks of the lab: so many probes in a row, each a little late, and the last one fails at
# its timeout; then a record is committed and rules are changed.
COMMIT_MS = 100.0
DETECT_MS = 1.1 * FALL * CHECK_INTERVAL_MS + CHECK_TIMEOUT_MS + COMMIT_MS
MAY_FALL_MS = 0.95 * (FALL - 1) * CHECK_INTERVAL_MS  # a shorter outage cannot be noticed
BACK_MS = RISE * CHECK_INTERVAL_MS + CHECK_TIMEOUT_MS + 1000.0
# One answer of the agent is enough: the next probe, its answer, a record, and rules.
AGENT_MS = 1.1 * AGENT_INTERVAL_MS + CHECK_TIMEOUT_MS + COMMIT_MS
BLIND_MS = 1.1 * FALL * CHECK_INTERVAL_MS + CHECK_TIMEOUT_MS + 1000.0  # to the end of its right

WORDS = (
    "noise",
    "release",
    "lease",
    "silent",
    "silent-two",
    "hindered",
    "deaf",
    "server",
    "rejoin",
    "restart",
    "unbounded",
)


def limit_ms(word: str, profile: str) -> float:
    """Return the bound that a word stands for in a profile."""
    lease_ms = LEASE_MS[profile]
    limits = {
        "noise": lease_ms + LATE_MS,
        "release": lease_ms + LATE_MS,
        "lease": 2 * lease_ms + LATE_MS,
        "silent": max(SILENT_LEASES * lease_ms, SILENT_MS) + LATE_MS,
        "silent-two": SILENT_TWO_MS + 2 * lease_ms + LATE_MS,
        "hindered": 2 * lease_ms + NOTICE_MS + LATE_MS,
        "server": DETECT_MS + lease_ms + LATE_MS,
        "deaf": 4 * lease_ms + LATE_MS,
        "rejoin": REJOIN_MS + 10 * lease_ms,
        "restart": RESTART_MS + 10 * lease_ms,
        "unbounded": UNBOUNDED_MS,
    }
    return limits[word]
