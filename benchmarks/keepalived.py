"""keepalived and conntrackd in the lab of hanat: the same network, servers and addresses.

Two routers, r1 and r2, as these programs are made for: FT-FW acknowledges to one peer.
One VRRP instance a network, both in a sync group, `nopreempt` so that a node that
returns takes nothing. Real-time priority as low as hanat's, notify scripts and order of
conntrackd's commands as in its own example (``primary-backup.sh``), a static ruleset that does
what hanat renders for these services.

keepalived runs with ``-G`` and without ``-D``: its log would stop the machine for
milliseconds. conntrackd sends on what hanat sends on: established TCP and UDP.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from itertools import permutations
from pathlib import Path

from chaos.lab.lab import Lab
from chaos.lab.lab_error import LabError, UsageError
from chaos.lab.netns import entered
from chaos.lab.node import Node
from chaos.lab.processes import identify, send_signal
from chaos.lab.topology import DEVICES, FLOATING, Host
from chaos.lab.waiting import wait_until

PROGRAMS = ("keepalived", "conntrackd", "conntrack")
ADVERTS_S = (1.0, 0.1, 0.01)
ROUTERS = ("r1", "r2")
READY_S = 20.0  # three adverts of a second, and the scripts

RULESET = """\
table ip lab {
  chain prerouting {
    type nat hook prerouting priority dstnat
    ip daddr PUBLIC tcp dport 80 dnat to numgen inc mod 3 map \
{ 0 : 10.11.12.101 . 8080, 1 : 10.11.12.102 . 8080, 2 : 10.11.12.101 . 8080 }
    ip daddr PUBLIC udp dport 53 dnat to numgen inc mod 2 map \
{ 0 : 10.11.12.101 . 5353, 1 : 10.11.12.102 . 5353 }
    ip daddr PUBLIC tcp dport 7 dnat to numgen inc mod 2 map \
{ 0 : 10.11.12.101 . 9000, 1 : 10.11.12.102 . 9000 }
    ip daddr PUBLIC tcp dport 9100-9109 dnat to 10.11.12.101
  }
  chain postrouting {
    type nat hook postrouting priority srcnat
    ct status dnat accept
    oifname "eth0" ip saddr 10.11.12.0/24 snat to PUBLIC
  }
}
""".replace("PUBLIC", FLOATING["public"].partition("/")[0])

KEEPALIVED_CONF = """\
global_defs {{
  router_id {name}
  script_user root
  vrrp_version 3
  vrrp_no_swap
  vrrp_rt_priority 1
}}
vrrp_sync_group both {{
  group {{
    public
    private
  }}
  notify_master "{script} primary"
  notify_backup "{script} backup"
  notify_fault "{script} fault"
}}
{instances}"""

INSTANCE = """\
vrrp_instance {network} {{
  state BACKUP
  nopreempt
  interface {device}
  virtual_router_id {number}
  priority {priority}
  advert_int {advert_s:g}
  virtual_ipaddress {{
    {address} dev {device}
  }}
}}
"""

CONNTRACKD_CONF = """\
Sync {{
  Mode FTFW {{
  }}
  UDP {{
    IPv4_address {own}
    IPv4_Destination_Address {peer}
    Port 3780
    Interface {device}
    SndSocketBuffer 1249280
    RcvSocketBuffer 1249280
    Checksum on
  }}
}}
General {{
  Scheduler {{
    Type RR
    Priority 1
  }}
  HashSize 32768
  HashLimit 524288
  LogFile {home}/conntrackd.log
  LockFile {home}/conntrackd.lock
  UNIX {{
    Path {home}/conntrackd.ctl
  }}
  NetlinkBufferSize 2097152
  NetlinkBufferSizeMaxGrowth 134217728
  Filter From Kernelspace {{
    Protocol Accept {{
      TCP
      UDP
    }}
    Address Ignore {{
      {ignored}
    }}
    State Accept {{
      ESTABLISHED CLOSED TIME_WAIT CLOSE_WAIT for TCP
    }}
  }}
}}
"""

SCRIPT = """\
#!/bin/sh
# What conntrackd's primary-backup.sh does, without its logging.
ask() {{ {conntrackd} -C {conf} "$1"; }}
case "$1" in
primary) ask -c; ask -f; ask -R; ask -B ;;
backup) ask -t; ask -n ;;
fault) ask -t ;;
esac
"""


def require_programs() -> None:
    """Check that there is something to compare with.

    Raises:
        UsageError: A program is missing.
    """
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        raise UsageError(
            f"the comparison needs {' and '.join(missing)}, not found in PATH; "
            "on Debian: apt install keepalived conntrackd conntrack"
        )


def keepalived_conf(router: Host, *, home: Path, advert_s: float) -> str:
    """Return a router's ``keepalived.conf``; the first router has the highest priority."""
    number = int(router.name[1:])
    instances = [
        INSTANCE.format(
            network=network,
            device=DEVICES[network],
            number=50 + i,
            priority=110 - number,
            advert_s=advert_s,
            address=FLOATING[network],
        )
        for i, network in enumerate(FLOATING, start=1)
    ]
    return KEEPALIVED_CONF.format(
        name=router.name, script=home / "primary-backup.sh", instances="".join(instances)
    )


def conntrackd_conf(router: Host, peer: Host, *, home: Path) -> str:
    """Return a router's ``conntrackd.conf``; states go through the private network."""
    addresses = {
        host.name: [port.address.partition("/")[0] for port in host.ports]
        for host in (router, peer)
    }
    own = ["127.0.0.1", *addresses[router.name], *addresses[peer.name]]
    return CONNTRACKD_CONF.format(
        own=addresses[router.name][1],
        peer=addresses[peer.name][1],
        device=DEVICES["private"],
        home=home,
        ignored="\n      ".join(f"IPv4_address {address}" for address in own),
    )


class KeepalivedNode(Node):
    """A router with both daemons; what is done to all processes is done to both."""

    def start(self) -> None:
        """Start conntrackd unless it runs, then keepalived.

        Raises:
            LabError: keepalived is running already, or conntrackd does not come up.
        """
        if self.running:
            raise LabError(f"cannot start {self.name}: it runs")
        if not self.conntrackd_answers():
            for name in ("conntrackd.lock", "conntrackd.ctl"):
                (self.folder / name).unlink(missing_ok=True)
            self._conntrackd = self.spawn(["conntrackd", "-C", str(self._conntrackd_conf)])
            wait_until(self.conntrackd_answers, READY_S, f"conntrackd of {self.name} to answer")
        self._child = self.spawn(
            [
                "keepalived", "--dont-fork", "--vrrp", "--no-syslog",
                "--use-file", str(self.folder / "keepalived.conf"),
                "--pid", str(self.folder / "keepalived.pid"),
                "--vrrp_pid", str(self._vrrp_pid),
            ]
        )  # fmt: skip
        self.wanted = True

    def kill_daemon(self) -> int:
        """SIGKILL the VRRP process, which decides; its parent starts another."""
        try:
            daemon = identify(int(self._vrrp_pid.read_text()))
        except (OSError, ValueError) as error:
            raise LabError(f"cannot find the VRRP process of {self.name}: {error}") from error
        instant_ns = time.monotonic_ns()
        if daemon is None or not send_signal(daemon, signal.SIGKILL):
            raise LabError(f"cannot kill the VRRP process of {self.name}: it has ended")
        return instant_ns

    def conntrackd_answers(self) -> bool:
        """Whether conntrackd runs and can be asked."""
        command = ["conntrackd", "-C", str(self._conntrackd_conf), "-s"]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    @property
    def _conntrackd_conf(self) -> Path:
        return self.folder / "conntrackd.conf"

    @property
    def _vrrp_pid(self) -> Path:
        return self.folder / "vrrp.pid"


class Keepalived:
    """Two nodes of keepalived and conntrackd; implements `systems.System`."""

    def __init__(self, prefix: str, advert_s: float) -> None:
        self._advert_s = advert_s
        self.lab = Lab(prefix)
        self.lab.nodes = {
            name: KeepalivedNode(
                name=name,
                prefix=prefix,
                folder=self.lab.folder / name,
                command=("keepalived",),
                on_start=self.lab.remember,
            )
            for name in ROUTERS
        }
        self.nodes: Mapping[str, Node] = self.lab.nodes
        # Three adverts are missed first, then the retransmissions of TCP have to come round.
        self.settle_s = 2.5 + 7 * advert_s

    def start(self) -> str:
        """See `systems.System.start`."""
        routers = {r.name: r for r in self.lab.topology.routers if r.name in ROUTERS}
        for router, peer in permutations(routers.values()):
            home = self.lab.folder / router.name
            conf = keepalived_conf(router, home=home, advert_s=self._advert_s)
            (home / "keepalived.conf").write_text(conf)
            (home / "conntrackd.conf").write_text(conntrackd_conf(router, peer, home=home))
            script = home / "primary-backup.sh"
            script.write_text(
                SCRIPT.format(conntrackd=shutil.which("conntrackd"), conf=home / "conntrackd.conf")
            )
            script.chmod(0o700)
            with entered(self.lab.topology.namespace(router.name)):
                subprocess.run(
                    ["nft", "-f", "-"], input=RULESET, text=True, capture_output=True, check=True
                )
        self.lab.start()
        return self.lab.wait_for(self.holder, READY_S, "one router with both addresses")

    def holder(self) -> str | None:
        """See `systems.System.holder`."""
        floating = {address.partition("/")[0] for address in FLOATING.values()}
        having = [name for name in self.nodes if self.lab.addresses(name) == floating]
        return having[0] if len(having) == 1 else None

    def hand_over(self, holder: str) -> None:
        """Stop keepalived on the holder, which says goodbye; there is no other way."""
        self.nodes[holder].stop()
