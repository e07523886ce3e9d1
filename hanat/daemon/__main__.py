"""The daemon as a process: read the files, run the node.

Started by the supervisor; ``hanat run`` is what users call.
"""

from __future__ import annotations

import argparse
import ssl
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hanat.config import cross_check, load_node, parse_cluster, read_keys, read_text
from hanat.errors import ConfigError, HanatError


def main() -> int:
    """Run the node a file describes; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m hanat.daemon")
    parser.add_argument("--config", type=Path, required=True, help="the node's own file")
    parser.add_argument(
        "--lifeline", type=int, nargs=2, help="descriptors of a socket and a pulse (see lifeline)"
    )
    options = parser.parse_args()
    try:
        return _run(options.config, options.lifeline)
    except HanatError as error:
        sys.stderr.write(f"hanat: {error}\n")
        return error.exit_code


def _run(node_file: Path, lifeline: Sequence[int] | None) -> int:
    settings = load_node(node_file)
    text = read_text(settings.cluster_file)
    configuration = parse_cluster(text, file=str(settings.cluster_file))
    if problems := cross_check(settings, configuration, file=str(node_file)):
        raise ConfigError(problems)
    keys = read_keys(settings.key_file)
    # Imported behind the checks: a wrong file is reported without loading the daemon.
    with _no_authorities():
        from hanat.daemon.main import run
    from hanat.daemon.supervisor_link import SupervisorLink

    return run(
        settings,
        keys=keys,
        configuration=configuration,
        configuration_text=text,
        lifeline=SupervisorLink(lifeline),
    )


@contextmanager
def _no_authorities() -> Iterator[None]:
    """Let nobody load the certificates of the machine's authorities.

    aiohttp does when it is imported, for clients: 1 MiB. The daemon serves, and speaks no TLS.
    """
    load = ssl.SSLContext.load_default_certs
    ssl.SSLContext.load_default_certs = lambda *_: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        ssl.SSLContext.load_default_certs = load  # type: ignore[method-assign]


if __name__ == "__main__":
    sys.exit(main())
