"""The state machine: only the picture's moves, and no way out of what is over but a person's wish."""

import re
import textwrap
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schema.functions import source
from schema.tables.outbound import RecipientState, State
from tasks.outbound import states
from tasks.outbound.outcomes import judge, reconnect_pause, retry_pause, settled
from tasks.outbound.states import FINAL, MOVES, RECIPIENT_MOVES, IllegalMove, guard, move, sources
from tasks.wire.smtp import Delivery, Outcome, RecipientResult, Reply, Stage

PAGE: Final = Path(__file__).parents[3] / "docs" / "sending.md"
STATES = st.sampled_from(State)
OUTCOMES = st.sampled_from(Outcome)


@given(STATES, STATES)
def test_a_move_happens_exactly_where_the_table_has_it(current: State, to: State) -> None:
    if to in MOVES[current]:
        assert move(current, to) is to
        assert current.value in sources(to)
    else:
        with pytest.raises(IllegalMove):
            move(current, to)


@given(st.lists(STATES, max_size=30))
def test_no_walk_leads_from_doubt_to_a_second_sending_but_through_the_queue(wishes: list[State]) -> None:
    """From uncertain the only way back to the wire is queued, which only a person or proof chooses."""
    state, before = State.UNCERTAIN, State.UNCERTAIN
    for wish in wishes:
        if wish in MOVES[state]:
            before, state = state, move(state, wish)
            if before is State.UNCERTAIN:
                assert state in (State.SENT, State.FAILED, State.QUEUED)


def test_every_state_is_in_the_table_and_sent_is_for_ever() -> None:
    assert set(MOVES) == set(State)
    assert set(RECIPIENT_MOVES) == set(RecipientState)
    assert not MOVES[State.SENT]
    assert all(MOVES[state] <= {State.QUEUED} for state in FINAL)


def test_nobody_who_was_reached_is_ever_sent_to_again() -> None:
    """From sent, however it goes on, no way leads back to where an attempt takes its recipients from."""
    reached, left = {RecipientState.SENT}, [RecipientState.SENT]
    while left:
        news = RECIPIENT_MOVES[left.pop()] - reached
        reached |= news
        left += news
    assert reached == {RecipientState.SENT, RecipientState.BOUNCED}


def test_the_triggers_are_written_from_these_tables() -> None:
    """Else write them anew: ``guard()`` into schema/functions/moves.sql, and a migration that applies it."""
    assert source("moves") == guard()


@given(st.lists(OUTCOMES, min_size=1, max_size=6), st.booleans(), st.integers(1, 50))
def test_the_verdict_follows_from_the_recipients(
    outcomes: list[Outcome], already_sent: bool, attempts: int
) -> None:
    replies = {Outcome.SENT: 250, Outcome.FAILED: 550, Outcome.DEFERRED: 451}
    results = tuple(
        RecipientResult(f"{n}@r.example", o, Reply(replies[o], None, "words") if o in replies else None)
        for n, o in enumerate(outcomes)
    )
    verdict = judge(Delivery(outcomes[0], Stage.DOT, None, results, 0.1, "why"), attempts, already_sent)

    assert [r.state.value for r in verdict.recipients] == [o.value for o in outcomes]
    assert (verdict.state is State.UNCERTAIN) == (Outcome.UNCERTAIN in outcomes)
    assert (verdict.pause is not None) == (verdict.state is State.DEFERRED)
    if verdict.state is State.FAILED:
        assert set(outcomes) == {Outcome.FAILED}
        assert not already_sent
    if verdict.state is State.SENT:
        assert not {Outcome.DEFERRED, Outcome.UNCERTAIN} & set(outcomes)
    move(State.ARMED, verdict.state)
    assert all(r.state is not RecipientState.PENDING for r in verdict.recipients)


@given(st.lists(st.sampled_from(RecipientState), min_size=1, max_size=6))
def test_doubt_ends_where_the_table_says_and_never_while_anyone_is_in_it(
    recipients: list[RecipientState],
) -> None:
    state = settled(recipients)

    assert (state is State.UNCERTAIN) == (RecipientState.UNCERTAIN in recipients)
    if state is not State.UNCERTAIN:
        move(State.UNCERTAIN, state)
    if state in FINAL:
        assert not {RecipientState.PENDING, RecipientState.DEFERRED} & set(recipients)


@given(st.integers(0, 10_000), st.floats(0, 1))
def test_pauses_grow_and_are_bounded(count: int, draw: float) -> None:
    assert 30 <= retry_pause(count, draw) <= 4 * 3600
    assert 2.5 <= reconnect_pause(count, draw) <= 900
    assert retry_pause(count, draw) <= retry_pause(count + 1, draw)


def test_the_page_shows_this_picture_and_this_table() -> None:
    page = PAGE.read_text(encoding="utf-8")
    pictures = re.findall(r"(?:^    .*\n)+", states.__doc__ or "", re.MULTILINE)
    rows = re.findall(r"^\| `(\w+)` \| ((?:`\w+`(?:, )?)+|nothing) \|$", page, re.MULTILINE)

    assert len(pictures) == 2
    for picture in pictures:
        assert f"```\n{textwrap.dedent(picture)}```" in page
    assert {was: set(re.findall(r"\w+", to)) - {"nothing"} for was, to in rows} == {
        was.value: {to.value for to in targets} for was, targets in MOVES.items()
    }


@pytest.mark.parametrize("state", State)
def test_the_picture_names_every_state(state: State) -> None:
    assert state.value in (states.__doc__ or "").split("And of each of its recipients")[0]
