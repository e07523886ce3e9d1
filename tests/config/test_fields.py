"""Values that the two files share or will need."""

from __future__ import annotations

import pytest

from hanat.config.fields import parse_duration, show


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("100ms", 0.1), ("2s", 2.0), ("1m", 60.0), ("1.5s", 1.5), ("2 h", 7200.0)],
)
def test_durations_carry_units(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("number", [5, 0.1])
def test_a_bare_number_is_no_duration_and_the_message_says_so(number: float) -> None:
    with pytest.raises(ValueError, match="a duration carries its unit"):
        parse_duration(number)


@pytest.mark.parametrize("text", ["5", "-1s", "1d", "s", "1e3s", "", True, None, []])
def test_other_durations_are_refused(text: object) -> None:
    with pytest.raises(ValueError, match=r"duration|must"):
        parse_duration(text)


def test_values_in_messages_are_escaped_and_short() -> None:
    assert show("a\x1b[31m\n") == r'"a\u001b[31m\n"'
    assert len(show("x" * 1000)) < 70
