"""A client that changes the configuration again and again, as one of several operators.

``python -m chaos.workloads.configuring cfg-1 r1=/.../api.sock r2=... --out FILE``: reads a
node's ``/v1/config`` with its revision, changes a weight, writes it back *if* that revision is
still the newest. Each write carries a number of its own in a comment, so that a read tells
whose write it sees. Nodes are drawn, also those that do not hold or do not run.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import random
import re
import time
from dataclasses import dataclass
from pathlib import Path

from chaos.lab.node_api import UnixConnection
from chaos.lab.stop import Stop
from chaos.observe import run_history
from chaos.observe.run_history import ConfigOperation, Outcome

TIMEOUT_S = 8.0
TAG = re.compile(r"^# chaos .*\n")
WEIGHT = re.compile(r"^  weight = \d+$", re.MULTILINE)
DONE, STALE = 200, 412
REFUSED = {400, 403, 404, 409, 413, 422, 428}  # certainly not done


def changed(text: str, *, tag: str, weight: int) -> str:
    """Return a cluster file with another weight of its first server, and a tag of its own."""
    rest = TAG.sub("", text, count=1)
    return f"# chaos {tag}\n" + WEIGHT.sub(f"  weight = {weight}", rest, count=1)


def digest(text: str) -> str:
    """Return what stands for a text in a history."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class _Found:
    """What became of an operation; see `run_history.ConfigOperation`."""

    f: str
    based_on: int | None
    revision: int | None
    text: str
    outcome: Outcome


class Client:
    """One operator."""

    def __init__(self, name: str, sockets: dict[str, Path], seed: int) -> None:
        self.done: list[ConfigOperation] = []
        self._name = name
        self._sockets = sockets
        self._draw = random.Random(f"{seed} {name}")

    def step(self) -> None:
        """Read from a node, write to a node."""
        read = self._read(self._draw.choice(sorted(self._sockets)))
        if read is not None:
            text, revision = read
            self._write(self._draw.choice(sorted(self._sockets)), text, revision)

    def _read(self, node: str) -> tuple[str, int] | None:
        t_ns = time.monotonic_ns()
        try:
            code, etag, body = ask(self._sockets[node], "GET")
        except OSError:
            return None  # nothing was changed by it, and nothing was learnt
        revision = revision_of(etag)
        if code != DONE or not revision:  # 0: a node that has none in force yet
            return None
        self._note(node, t_ns, _Found("read", None, revision, body, "ok"))
        return body, revision

    def _write(self, node: str, text: str, based_on: int) -> None:
        tag = f"{self._name}-{len(self.done)}"
        new = changed(text, tag=tag, weight=self._draw.randint(1, 9))
        t_ns = time.monotonic_ns()
        f, revision = "write", None
        outcome: Outcome
        try:
            code, etag, _ = ask(self._sockets[node], "PUT", body=new, based_on=based_on)
        except ConnectionRefusedError:
            outcome = "fail"
        except OSError:
            outcome = "info"
        else:
            f = "stale" if code == STALE else "write"
            refused = code == STALE or code in REFUSED
            outcome = "ok" if code == DONE else "fail" if refused else "info"
            revision = revision_of(etag) if code == DONE else None
        self._note(node, t_ns, _Found(f, based_on, revision, new, outcome))

    def _note(self, node: str, t_ns: int, found: _Found) -> None:
        self.done.append(
            ConfigOperation(
                t_ns=t_ns,
                end_ns=time.monotonic_ns(),
                client=self._name,
                node=node,
                f=found.f,
                based_on=found.based_on,
                revision=found.revision,
                text=digest(found.text),
                outcome=found.outcome,
            )
        )


def ask(
    path: Path, method: str, *, body: str | None = None, based_on: int | None = None
) -> tuple[int, str, str]:
    """Return status, ETag and body of an answer.

    Raises:
        OSError: There was none within `TIMEOUT_S`, or it was broken.
    """
    connection = UnixConnection(path, TIMEOUT_S)
    headers = {} if based_on is None else {"If-Match": f'"{based_on}"'}
    try:
        connection.request(method, "/v1/config", body=body, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.getheader("ETag") or "", answer.read().decode()
    except http.client.HTTPException as error:
        raise OSError(f"broken answer from {path}: {error!r}") from error
    finally:
        connection.close()


def revision_of(etag: str) -> int | None:
    """Return the revision that an ETag names, None if it is none."""
    match = re.fullmatch(r'"(\d{1,18})"', etag)
    return None if match is None else int(match[1])


def main() -> None:
    """Parse the command line, change until told to stop, write the history."""
    parser = argparse.ArgumentParser(
        prog="python -m chaos.workloads.configuring", description=__doc__
    )
    parser.add_argument("name")
    parser.add_argument("node", nargs="+", help="NAME=SOCKET")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--period-ms", type=float, default=300)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    sockets = {name: Path(path) for name, _, path in (n.partition("=") for n in options.node)}
    stop = Stop(options.seconds)
    client = Client(options.name, sockets, options.seed)
    while not stop:
        began = time.monotonic()
        client.step()
        time.sleep(max(0.0, began + options.period_ms / 1000 - time.monotonic()))
    draft = options.out.with_suffix(".part")
    with draft.open("w") as file:
        for fact in client.done:
            run_history.write(file, fact)
    draft.rename(options.out)


if __name__ == "__main__":
    main()
