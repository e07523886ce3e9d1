"""Alarms about the connection-tracking table."""

from __future__ import annotations

from hanat.core.table_pressure import TableAlarm, TableStatistics


def test_alarm_begins_at_90_percent_and_ends_at_85() -> None:
    alarm = TableAlarm()
    told = [
        bool(alarm.look(TableStatistics(entries, 1000), now=float(place)))
        for place, entries in enumerate((0, 899, 900, 1000, 860, 850, 849, 899, 900))
    ]
    assert told == [False, False, True, True, True, True, False, False, True]


def test_alarm_says_how_full_it_is() -> None:
    (text,) = TableAlarm().look(TableStatistics(245_000, 262_144), now=0.0)
    assert text == "connection table 93 % full (245000 of 262144)"


def test_no_limit_is_no_alarm() -> None:
    assert TableAlarm().look(TableStatistics(1_000_000, 0), now=0.0) == ()


def test_what_found_no_room_is_alarming_for_a_minute() -> None:
    alarm = TableAlarm()
    assert alarm.look(TableStatistics(10, 1000, dropped=7), now=0.0) == ()  # of long ago
    (text,) = alarm.look(TableStatistics(10, 1000, dropped=9), now=1.0)
    assert text == "connection table was full: 2 packets dropped in the last minute"
    assert alarm.look(TableStatistics(10, 1000, dropped=9), now=62.0) == ()


def test_used_up_ports_are_alarming_and_single_races_are_not() -> None:
    alarm = TableAlarm()
    assert alarm.look(TableStatistics(10, 1000, uninserted=3), now=0.0) == ()
    assert alarm.look(TableStatistics(10, 1000, uninserted=12, dropped=9), now=1.0) == ()
    (text,) = alarm.look(TableStatistics(10, 1000, uninserted=13, dropped=10), now=2.0)
    assert text.startswith("10 flows found no free port of a floating address")
