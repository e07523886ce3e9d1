"""A removal of the package leaves nothing in the kernel that silences addresses."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.test_files import DEPLOY, EXAMPLE
from tests.kernel.namespaces import namespaces

pytestmark = pytest.mark.kernel

OTHERS = "add table inet others\n"
TABLES = ("inet hanat", "inet hanat_gate", "arp hanat_gate", "inet hanat_notes")
OURS = "".join(f"add table {table}\n" for table in TABLES)
# Files below /etc of this process alone; nothing of the machine's is touched.
PRIVATE_ETC = "mount -t tmpfs none /etc && cp -r {files} /etc/hanat && exec sh {script} remove"


@pytest.fixture
def router() -> Iterator[str]:
    """A network namespace with the tables of a node, and those of somebody else."""
    with namespaces("router") as made:
        nft(made["router"], "-f", "-", script=OURS + OTHERS)
        yield made["router"]


def nft(namespace: str, *words: str, script: str = "") -> list[str]:
    done = subprocess.run(
        ["ip", "netns", "exec", namespace, "nft", *words],
        input=script,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


def remove_package(namespace: str, files: Path) -> subprocess.CompletedProcess[str]:
    """Run the package's script as dpkg does, with these files for /etc/hanat."""
    steps = PRIVATE_ETC.format(files=files, script=DEPLOY / "debian/prerm")
    return subprocess.run(
        ["ip", "netns", "exec", namespace, "unshare", "--mount", "sh", "-c", steps],
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A router's folder /etc/hanat."""
    folder = tmp_path / "hanat"
    shutil.copytree(EXAMPLE / "r1", folder)
    text = (folder / "node.toml").read_text()
    (folder / "node.toml").write_text(text.replace("/var/lib/hanat", str(tmp_path / "data")))
    shutil.copy(EXAMPLE / "cluster.toml", folder)
    return folder


def test_removal_takes_the_tables_of_the_node_away_and_no_others(router: str, files: Path) -> None:
    done = remove_package(router, files)
    assert done.returncode == 0
    assert "tables stay" not in done.stderr
    assert nft(router, "list", "tables") == ["table inet others"]
    again = remove_package(router, files)
    assert again.returncode == 0
    assert "tables stay" not in again.stderr


def test_tables_stay_where_nobody_knows_what_they_silence(router: str, files: Path) -> None:
    (files / "node.toml").write_text("damaged")
    done = remove_package(router, files)
    assert done.returncode == 0
    assert "could not be fenced" in done.stderr
    assert len(nft(router, "list", "tables")) == len(TABLES) + 1
