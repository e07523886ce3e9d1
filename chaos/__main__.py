"""Command line of the lab: ``python -m chaos up | down | demo | run | compare``.

Exit codes: 0 done, 1 something failed, 2 this machine or the command line is not fit.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from chaos import demo, running
from chaos.lab.lab import HANAT, Lab, require_machine
from chaos.lab.lab_error import LabError, UsageError
from chaos.lab.node_files import PROFILES, cluster_toml
from chaos.lab.removal import DEFAULT_PREFIX, prefix_option, remove_lab
from chaos.report import comparing, report

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main() -> int:
    """Run a command and return the exit code."""
    options = _parser().parse_args()
    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup, or a script's background, wants
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
    """End what is under way; what follows is short, and a second Ctrl-C must not cut it off."""
    _ignore_signals()
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

    building.add_argument(
        "--profile",
        choices=PROFILES,
        default="default",
        help="how fast a takeover is, and how much CPU that costs (default: %(default)s)",
    )

    up = commands.add_parser("up", parents=[common, building], help="build a lab, leave it running")
    up.set_defaults(run=_up)
    demo = commands.add_parser(
        "demo", parents=[common, building], help="kill the holder under traffic and judge it"
    )
    demo.add_argument("--keep", action="store_true", help="leave the lab running afterwards")
    demo.add_argument("--json", type=Path, help="also write the result to this file")
    demo.add_argument("--save", type=Path, help="keep histories and logs in this new folder")
    demo.add_argument(
        "--outage-limit-ms",
        type=float,
        default=500,  # five leases of the default profile, one of calm; a change takes about one
        help="a longer UDP outage fails (default: %(default)s)",
    )
    demo.set_defaults(run=_demo)
    running.add_parser(commands, [common, building]).set_defaults(run=_run)
    comparing.add_parser(commands)
    down = commands.add_parser("down", parents=[common], help="remove a lab, also after a crash")
    down.add_argument("--force", action="store_true", help="even if a program is using it")
    down.set_defaults(run=_down)
    return parser


def _run(options: argparse.Namespace) -> int:
    return running.run(options, lambda before: _lab(options, before), _ignore_signals)


def _lab(options: argparse.Namespace, before: Sequence[str] = ()) -> Lab:
    """Prepare a lab; `before` is to stand before the command of every node."""
    folder = options.folder.resolve() if options.folder else None
    if options.hanat and shutil.which(options.hanat[0]) is None:
        raise UsageError(f"--hanat: there is no program {options.hanat[0]}")
    files = cluster_toml(profile=options.profile)
    command = [*before, *(options.hanat or HANAT)]
    return Lab(options.prefix, folder=folder, hanat=command, cluster_toml=files)


def _up(options: argparse.Namespace) -> int:
    lab = _lab(options)
    try:
        lab.build()
        lab.start()
        holder = lab.wait_for_holder()
        lab.keep()
    except BaseException:
        _ignore_signals()
        lab.remove()
        raise
    print(f"The lab is up, {holder} holds the floating addresses. To look inside:\n")
    print(_how_to_look(lab, holder))
    return 0


def _demo(options: argparse.Namespace) -> int:
    begun = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - begun:6.1f} s  {text}", flush=True)

    lab = _lab(options)
    _check_outputs(options)
    code = 1
    try:
        lab.build()
        say("the network is built, the servers listen; starting hanat on r1, r2, r3")
        run = demo.Run(say)
        demo.perform(lab, run)
        result = demo.judge(run, outage_limit_ms=options.outage_limit_ms)
        print("\n".join(report.text(result, list(lab.nodes))))
        if options.json:
            options.json.write_text(json.dumps(report.document(result), indent=2) + "\n")
        verdict, code = demo.last_line(result), 0 if result.valid is True else 1
    except UsageError:
        raise
    except LabError as error:
        verdict = f"demo: FAILED {error}".replace("\n", " | ")
    except KeyboardInterrupt:
        verdict = "demo: FAILED interrupted"
    finally:
        _finish(lab, options)
    print(verdict, flush=True)
    return code


def _check_outputs(options: argparse.Namespace) -> None:
    for file in (options.json, options.save):
        if file is not None and not file.resolve().parent.is_dir():
            raise UsageError(f"cannot write {file}: there is no folder {file.resolve().parent}")
    if options.save is not None and options.save.exists():
        raise UsageError(f"cannot save to {options.save}: it exists; choose a new folder")


def _ignore_signals() -> None:
    """Keep a second Ctrl-C from leaving half a lab behind."""
    for number in SIGNALS:
        signal.signal(number, _ignored)  # children would inherit SIG_IGN


def _ignored(_number: int, _frame: FrameType | None) -> None:
    """Do nothing."""


def _finish(lab: Lab, options: argparse.Namespace) -> None:
    """Save what is to be saved, then remove the lab, or keep it."""
    _ignore_signals()
    try:
        if options.save and lab.built:
            lab.save(options.save)
    finally:
        if options.keep and lab.built:
            lab.keep()
            print(f"The lab is left running, its folder is {lab.folder}. To look inside:\n")
            print(_how_to_look(lab, lab.holder() or "r1") + "\n")
        else:
            lab.remove()


def _down(options: argparse.Namespace) -> int:
    require_machine()
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
        f"{client} {_fetch('http://203.0.113.10/')}        # a service, from the client",
        f"{client} {_fetch('http://[2001:db8:113::10]/')}  # the same over IPv6",
        f"{server} {_fetch('http://203.0.113.100:8080/')}  # outbound, through SNAT",
        f"ip -n {router} -br addr  # addresses of the holder",
        f"ip netns exec {router} nft list ruleset",
        f"export HANAT_API=unix:{api}",
        f"{hanat} status  # and history, vip who, conn list, config show",
        f"{hanat} service list  # and server list; server show web/web1: why it gets clients",
        f"{hanat} server drain web/web1  # no new clients for it; server ready web/web1: again",
        f"{hanat} switchover --to {other}",
        f"tail -f {lab.folder}/r?/hanat.log",
        f"{shlex.quote(sys.executable)} -m chaos down{prefix_option(lab.prefix)}",
    ]
    return "\n".join(f"  {line}" for line in lines)


def _fetch(url: str) -> str:
    """Return a command that shows what a URL answers, on a machine without curl."""
    code = (
        f"import urllib.request as u; print(u.urlopen('{url}', timeout=5).read().decode(), end='')"
    )
    return f'{shlex.quote(sys.executable)} -c "{code}"'


if __name__ == "__main__":
    exit_code = main()
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)  # at its end Python would let them kill it again
    sys.exit(exit_code)
