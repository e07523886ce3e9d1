"""The files of deploy/ say what the rest of hanat says."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path

import pytest

from hanat.config import cross_check, load_cluster, load_node, parse_cluster
from hanat.config.models import NodeFile
from hanat.config.settings import UnixListen
from hanat.core.configuration import Configuration
from hanat.doctor.examine import Site, examine, sysctl_names
from hanat.doctor.findings import Level
from hanat.doctor.script_findings import judge_scripts
from hanat.kernel.facts import CAPABILITIES, Machine, NftFacts
from hanat.kernel.script_facts import gather_scripts

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
EXAMPLE = DEPLOY / "examples" / "three-node"
UNIT = DEPLOY / "systemd" / "hanat.service"
NODES = ("r1", "r2", "r3")
SITE = Site(load_node(EXAMPLE / "r1/node.toml"), load_cluster(EXAMPLE / "cluster.toml"))
# Every switch as it must not be; strict reverse paths, redirects and proxies on.
WRONG = {
    name: "1" if "/conf/" in name and "forwarding" not in name else "0"
    for name in sysctl_names(SITE.devices)
}


def settings(*, ipv6: bool = False) -> list[tuple[str, str]]:
    """Return the lines of the sysctl file as pattern below /proc/sys and value."""
    text = (DEPLOY / "sysctl.d/60-hanat.conf").read_text()
    if ipv6:
        text = text.replace("# net.ipv6", "net.ipv6")
    found = re.findall(r"^([a-z][\w.*]+) = (\d)$", text, re.MULTILINE)
    return [(name.replace(".", "/"), value) for name, value in found]


def complaints(values: dict[str, str], site: Site) -> set[str]:
    machine = Machine(sysctls=values, nft=NftFacts(version="1"))
    return {
        finding.check
        for finding in examine(machine, site)
        if finding.level is not Level.OK and finding.check.startswith("net.")
    }


def applied(values: dict[str, str], lines: list[tuple[str, str]]) -> dict[str, str]:
    result = dict(values)
    for pattern, value in lines:
        result.update({name: value for name in result if fnmatch(name, pattern)})
    return result


def with_ipv6(configuration: Configuration) -> Configuration:
    text = (EXAMPLE / "cluster.toml").read_text()
    both = text.replace('"203.0.113.10/24"]', '"203.0.113.10/24", "2001:db8:113::10/64"]')
    changed = parse_cluster(both, file="cluster.toml")
    assert changed != configuration
    return changed


def test_settings_are_those_that_the_doctor_demands() -> None:
    # Events are no complaint: a node that is not run by the unit sets them itself.
    assert len(complaints(WRONG, SITE)) == 12
    assert complaints(applied(WRONG, settings()), SITE) == set()
    assert ("net/netfilter/nf_conntrack_events", "1") in settings()


def test_settings_for_ipv6_are_there_and_asked_for() -> None:
    assert SITE.configuration is not None
    site = replace(SITE, configuration=with_ipv6(SITE.configuration))
    assert complaints(applied(WRONG, settings()), site) == {"net.ipv6.conf.all.forwarding"}
    assert complaints(applied(WRONG, settings(ipv6=True)), site) == set()


def test_every_setting_that_the_doctor_judges_is_needed() -> None:
    for number, (pattern, _) in enumerate(settings()):
        if pattern.endswith("nf_conntrack_events") or "/default/" in pattern:
            continue
        # "*" in a name below covers "all" too.
        rest = [x for i, x in enumerate(settings()) if i != number and "*" not in x[0]]
        assert complaints(applied(WRONG, rest), SITE), pattern


def test_modules_are_those_that_the_doctor_tells_to_load() -> None:
    listed = {
        line
        for line in (DEPLOY / "modules-load.d/hanat.conf").read_text().splitlines()
        if line and not line.startswith("#")
    }
    bare = examine(Machine(nft=NftFacts(problem="no")), SITE)
    told = {f.fix.split()[1].rstrip(",") for f in bare if f.fix.startswith("modprobe")}
    assert told <= listed
    assert told == {"nf_tables", "nf_conntrack"}


def test_unit_grants_what_the_doctor_looks_for() -> None:
    lines = UNIT.read_text().splitlines()
    for key in ("AmbientCapabilities", "CapabilityBoundingSet"):
        (line,) = (x for x in lines if x.startswith(f"{key}="))
        assert set(line.partition("=")[2].split()) == set(CAPABILITIES)


@pytest.mark.parametrize("name", NODES)
def test_example_fits_together_and_fits_the_unit(name: str) -> None:
    file = EXAMPLE / name / "node.toml"
    node, cluster = load_node(file), load_cluster(EXAMPLE / "cluster.toml")
    assert cross_check(node, cluster, file=str(file)) == ()
    assert node.node == name
    unit = UNIT.read_text()
    assert f"ConditionPathExists={node.key_file}\n" in unit
    assert node.data_dir == Path("/var/lib/hanat")
    assert "StateDirectory=hanat\n" in unit
    assert UnixListen(Path("/run/hanat/api.sock")) in node.api_listen
    assert "RuntimeDirectory=hanat\n" in unit


def test_unit_is_one_that_systemd_reads_without_a_complaint(
    tmp_path: Path, systemd_analyze: str
) -> None:
    # The program is not installed here; that alone would be a complaint.
    unit = tmp_path / "hanat.service"
    unit.write_text(UNIT.read_text().replace("/usr/bin/hanat", "/bin/true"))
    done = subprocess.run(
        [systemd_analyze, "verify", "--man=no", str(unit)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize("name", ["postinst", "prerm", "postrm"])
def test_script_of_the_package_is_one_that_a_shell_reads(name: str) -> None:
    script = DEPLOY / "debian" / name
    subprocess.run(["sh", "-n", str(script)], check=True)
    assert "\nset -e\n" in script.read_text()


def test_every_table_of_a_node_file_can_be_written_by_the_playbook() -> None:
    template = (DEPLOY / "ansible/roles/hanat/templates/node.toml.j2").read_text()
    tables = {
        name for name, field in NodeFile.model_fields.items() if "Table" in str(field.annotation)
    }
    assert tables >= {"api", "checker", "peer"}
    assert [name for name in sorted(tables) if f"[{name}]" not in template] == []


def test_drop_in_of_the_documentation_is_what_the_doctor_wants(tmp_path: Path) -> None:
    folder = tmp_path / "usr/lib/systemd/system"
    folder.mkdir(parents=True)
    (folder / "hanat.service").write_text(UNIT.read_text())
    file = EXAMPLE / "r1/node.toml"
    node = replace(load_node(file), script_user="nobody")

    def complaint() -> list[str]:
        facts = gather_scripts(Path("/"), (), "nobody", root=tmp_path)
        return [f.found for f in judge_scripts(node, facts) if f.level is not Level.OK]

    assert "CAP_SETUID in AmbientCapabilities=" in complaint()[0]
    drop_in = re.search(
        r"```ini\n(\[Service\]\nAmbient.*?)```", (ROOT / "docs/services.md").read_text(), re.DOTALL
    )
    assert drop_in
    local = tmp_path / "etc/systemd/system/hanat.service.d"
    local.mkdir(parents=True)
    (local / "override.conf").write_text(drop_in[1])
    assert complaint() == []
