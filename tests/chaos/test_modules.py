"""A lab has the kernel that a router has, or says what is missing."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from chaos.lab import modules
from chaos.lab.lab_error import LabError, UsageError
from chaos.lab.netns import NETNS_DIR, write_sysctls
from chaos.lab.processes import environment
from chaos.lab.topology import ROUTER_SYSCTLS, build, remove, three_routers

CROWDED = """\
import subprocess
from chaos.lab.topology import build, remove, three_routers
from tests.kernel.namespaces import cable, namespaces

for device in ("eth0", "eth1"):
    subprocess.run(["ip", "link", "add", device, "type", "bridge"], check=True)
lab = three_routers({prefix!r})
build(lab)
remove(lab)
with namespaces("here", "far") as made:
    cable((made["here"], "eth0"), (made["far"], "eth1"))
print("built")
"""


def test_modules_are_those_that_a_router_loads() -> None:
    assert {"nf_tables", "nf_conntrack"} <= set(modules.listed())


def test_comments_of_the_list_are_no_modules(tmp_path: Path) -> None:
    file = tmp_path / "some.conf"
    file.write_text("# one\n; two\n\n  nf_nat\n")
    assert modules.listed(file) == ["nf_nat"]


def test_kernel_without_them_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"lacks .*absent, and no_such_module could not be loaded"):
        modules.require(["no_such_module"], tmp_path / "absent")


def test_kernel_that_has_them_built_in_needs_no_modprobe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    modules.require(["no_such_module"], tmp_path)


def test_routers_have_what_the_package_switches_on() -> None:
    text = (modules.LIST.parents[1] / "sysctl.d" / "60-hanat.conf").read_text()
    on = re.findall(r"^(net\.[\w.]+) = (1)$", text, re.MULTILINE)
    assert on
    assert set(on) <= ROUTER_SYSCTLS.items()


@pytest.mark.kernel
def test_setting_that_the_kernel_lacks_is_not_skipped(prefix: str) -> None:
    network = three_routers(prefix)
    build(network)
    try:
        with pytest.raises(LabError, match=r"cannot set net\.netfilter\.absent=1 in .*: No such"):
            write_sysctls(network.namespaces[0], {"net.netfilter.absent": "1"})
    finally:
        remove(network)
    assert not any(name.startswith("?") for name in ROUTER_SYSCTLS)


@pytest.mark.kernel
def test_machine_that_has_an_eth0_of_its_own_can_have_a_lab(prefix: str) -> None:
    # Before Linux 6.15 a device that is made from outside is refused: "File exists".
    done = subprocess.run(
        ["unshare", "--net", sys.executable, "-c", CROWDED.format(prefix=prefix)],
        env=environment("none", "test"),
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "built\n", "")
    assert not list(NETNS_DIR.glob(f"{prefix}-*"))
