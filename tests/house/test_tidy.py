"""The house is tidy, and each rule of tidiness can fail."""

from __future__ import annotations

import pytest

from tests.house import tidy


@pytest.mark.parametrize("rule", tidy.RULES, ids=lambda rule: rule.__name__)
def test_every_tracked_file_keeps_the_rule(rule: tidy.Rule) -> None:
    if found := tidy.complaints(rule, tidy.tracked_files()):
        pytest.fail("\n".join(found), pytrace=False)


def test_the_root_folder_holds_what_a_visitor_should_see_first() -> None:
    assert tidy.stray_root_names(tidy.tracked_files()) == []


def test_no_two_modules_have_the_same_name() -> None:
    assert tidy.shared_names(tidy.tracked_files()) == []


def test_a_name_that_two_modules_share_is_seen() -> None:
    names = ["hanat/core/a.py", "hanat/raft/a.py", "chaos/judge/a.py", "hanat/raft/__init__.py"]
    assert tidy.shared_names(names) == ["hanat/raft/a.py: hanat/core/a.py has the same name"]


def test_the_tracked_files_are_found() -> None:
    names = tidy.tracked_files()
    assert {"pyproject.toml", "hanat/errors.py"} <= set(names)


def test_a_stray_root_name_is_seen() -> None:
    names = ["hanat/errors.py", "PLAN.md", "scraps/a.py", "scraps/b.py"]
    assert tidy.stray_root_names(names) == [
        "PLAN.md: does not belong in the root folder",
        "scraps: does not belong in the root folder",
    ]


def test_a_file_of_501_lines_is_seen() -> None:
    assert list(tidy.long_file("a.py", "x = 1\n" * 500)) == []
    assert list(tidy.long_file("a.py", "x = 1\n" * 501)) == ["a.py: 501 lines, at most 500"]
    assert list(tidy.long_file("docs/a.md", "x\n" * 501)) == []


@pytest.mark.parametrize("head", ["def f():\n", "async def f():\n"])
def test_a_function_of_61_lines_is_seen(head: str) -> None:
    body = "    x = 1\n"
    assert list(tidy.long_functions("a.py", head + body * 59)) == []
    assert list(tidy.long_functions("a.py", "\n" + head + body * 60)) == [
        "a.py:2: f has 61 lines, at most 60"
    ]


def test_a_method_is_a_function_too() -> None:
    text = "class A:\n    def f(self):\n" + "        x = 1\n" * 60
    assert list(tidy.long_functions("a.py", text)) == ["a.py:2: f has 61 lines, at most 60"]


@pytest.mark.parametrize(
    ("head", "count"),
    [
        ("def f(a, b, c, d, e, g): ...", 0),
        ("def f(a, b, c, d, e, g, h): ...", 7),
        ("def f(a, /, b, *, c, d, e, g, h): ...", 7),
        ("def f(a, b, c, d, e, *f, **g): ...", 7),
        ("class A:\n    def f(self, a, b, c, d, e, g): ...", 0),
        ("class A:\n    def f(self, a, b, c, d, e, g, h): ...", 7),
    ],
)
def test_seven_parameters_are_seen(head: str, count: int) -> None:
    found = list(tidy.many_parameters("a.py", head))
    assert bool(found) is bool(count)
    assert all(f"{count} parameters, at most 6" in sentence for sentence in found)


@pytest.mark.parametrize(
    ("line", "bad"),
    [
        ("# TODO: later", True),
        ("# FIXME", True),
        ("TODO(me) sometime", True),
        ("# TODO(#12): later", False),
        ("# TODO #12 later", False),
        ("TODOS = 1", False),
    ],
)
def test_a_todo_without_an_issue_is_seen(line: str, bad: bool) -> None:  # noqa: FBT001
    assert bool(list(tidy.unnumbered_todos("a.py", line))) is bad


@pytest.mark.parametrize(
    ("line", "bad"),
    [
        ('path = "/root/x"', True),
        ("cd /work/main", True),
        ("/home/alice/hanat", True),
        ("see https://pypi.org/project", True),
        ("pip install --index-url x", True),
        ("--extra-index-url x", True),
        ("hanat/work/x", False),
        ("$HOME/root", False),
        ("ip route add default via /rooted", False),
        ("/etc/hanat/cluster.key", False),
        ("https://example.org/root", False),
    ],
)
def test_what_is_true_on_one_machine_only_is_seen(line: str, bad: bool) -> None:  # noqa: FBT001
    assert bool(list(tidy.forbidden_words("a.md", line))) is bad


@pytest.mark.parametrize(
    "text",
    [
        "import time\ntime.sleep(1)",
        "from time import sleep\nsleep(1)",
        "import time as t\nt.sleep(1)",
        "import pytest\n@pytest.mark.skip(reason='x')\ndef test_a(): ...",
        "import pytest\n@pytest.mark.skipif(True, reason='x')\ndef test_a(): ...",
        "import pytest\npytest.skip('x')",
        "from pytest import importorskip\nimportorskip('x')",
    ],
)
def test_a_test_that_waits_or_skips_is_seen(text: str) -> None:
    assert list(tidy.waits_and_skips("tests/core/test_a.py", text))
    assert not list(tidy.waits_and_skips("hanat/core/a.py", text))


def test_a_suite_may_skip_itself_in_its_conftest_but_not_wait() -> None:
    skip = "import pytest\npytest.skip('needs root')"
    wait = "import time\ntime.sleep(1)"
    assert not list(tidy.waits_and_skips("tests/kernel/conftest.py", skip))
    assert list(tidy.waits_and_skips("tests/kernel/conftest.py", wait))


def test_a_device_that_is_made_from_outside_its_namespace_is_seen() -> None:
    outside = "link add {device} {word} {host} type veth peer name {port} netns {switch}"
    inside = "link add {device} address {mac} type veth peer name {port} netns {switch}"
    for word, bad in (("netns", True), ("address {mac} netns", True), ("dev", False)):
        line = outside.replace("{word}", word)
        assert bool(list(tidy.cables_from_outside("a.py", line))) is bad
    assert not list(tidy.cables_from_outside("a.py", inside))
