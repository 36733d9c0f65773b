"""How long a protocol rests after refused credentials."""

from datetime import timedelta

from tasks.mailboxes.health import pause_after


def test_pauses_grow_from_a_minute_to_a_day() -> None:
    minutes = [pause_after(count) / timedelta(minutes=1) for count in range(1, 13)]

    assert minutes == [1, 5, 15, 30, 60, 120, 240, 480, 960, 1440, 1440, 1440]


def test_a_draw_spreads_returns_by_at_most_a_tenth() -> None:
    assert pause_after(3, 1.0) == pause_after(3) * 1.1


def test_many_refusals_do_not_overflow() -> None:
    assert pause_after(10**9) == timedelta(hours=24)
