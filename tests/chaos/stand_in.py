"""A command that takes hanat's place where a test is about the lab and not about hanat.

``keygen FILE`` and ``run --config node.toml``. With ``die`` in the node's folder, `run`
ends at once; otherwise it starts a child, as the supervisor does, and both sleep. The
child listens where the daemon's API would.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from pathlib import Path


def main() -> int:
    command, *rest = sys.argv[1:]
    if command == "keygen":
        Path(rest[0]).write_text("key\n")
        return 0
    folder = Path(rest[1]).parent
    if (folder / "die").exists():
        sys.stderr.write("no such interface: eth7\n")
        return 5
    if os.fork() == 0:
        os.setsid()  # even a child that left the session belongs to the lab
        (folder / "api.sock").unlink(missing_ok=True)
        api = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        api.bind(str(folder / "api.sock"))
        api.listen()
        while True:
            signal.pause()
    (folder / "started").touch()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    while True:
        signal.pause()


if __name__ == "__main__":
    sys.exit(main())
