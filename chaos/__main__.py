"""Command line of the lab: ``python -m chaos up | down | demo``.

Exit codes: 0 done, 1 something failed, 2 this machine or the command line is not fit.
"""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import NoReturn

from chaos.errors import LabError
from chaos.lab import Lab
from chaos.removal import DEFAULT_PREFIX, prefix_option, remove_lab


def main() -> int:
    """Run a command and return the exit code."""
    options = _parser().parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupted)
    try:
        code: int = options.run(options)
    except LabError as error:
        print(f"chaos: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("chaos: interrupted; everything was removed", file=sys.stderr)
        return 130  # as a shell reports SIGINT
    return code


def _interrupted(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--prefix",
        default=DEFAULT_PREFIX,
        help="namespaces are called PREFIX-r1 and so on; one lab per prefix (default: %(default)s)",
    )
    building = argparse.ArgumentParser(add_help=False)
    building.add_argument("--folder", type=Path, help="run folder (default: /tmp/PREFIX-lab)")
    building.add_argument(
        "--hanat", type=shlex.split, help="command under test (default: this repository's hanat)"
    )

    up = commands.add_parser("up", parents=[common, building], help="build a lab, leave it running")
    up.set_defaults(run=_up)
    down = commands.add_parser("down", parents=[common], help="remove a lab, also after a crash")
    down.add_argument("--force", action="store_true", help="even if a program is using it")
    down.set_defaults(run=_down)
    return parser


def _lab(options: argparse.Namespace) -> Lab:
    folder = options.folder.resolve() if options.folder else None
    return Lab(options.prefix, folder=folder, hanat=options.hanat)


def _up(options: argparse.Namespace) -> int:
    lab = _lab(options)
    lab.build()
    try:
        lab.start()
        holder = lab.wait_for_holder()
        lab.keep()
    except BaseException:
        lab.remove()
        raise
    print(f"The lab is up, {holder} holds the floating addresses. To look inside:\n")
    print(_how_to_look(lab, holder))
    return 0


def _down(options: argparse.Namespace) -> int:
    done = remove_lab(options.prefix, force=options.force)
    for line in done or ["nothing to remove"]:
        print(line)
    return 0


def _how_to_look(lab: Lab, holder: str) -> str:
    client = f"ip netns exec {lab.topology.namespace('c1')}"
    server = f"ip netns exec {lab.topology.namespace('s1')}"
    router = lab.topology.namespace(holder)
    api = lab.nodes[holder].socket
    other = next(name for name in lab.nodes if name != holder)
    hanat = shlex.join(lab.hanat)
    lines = [
        f"{client} curl -s http://203.0.113.10/        # a service, from the client",
        f"{server} curl -s http://203.0.113.100:8080/  # outbound, through SNAT",
        f"ip -n {router} -br addr                      # addresses of the holder",
        f"ip netns exec {router} nft list ruleset",
        f"ip netns exec {router} conntrack -L",
        f"{hanat} status --api unix:{api}",
        f"curl -s --unix-socket {api} http://localhost/v1/status",
        f"{hanat} switchover --to {other} --api unix:{api}",
        f"tail -f {lab.folder}/r?/hanat.log",
        f"python -m chaos down{prefix_option(lab.prefix)}",
    ]
    return "\n".join(f"  {line}" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
