"""Where a command finds its message, what goes together, and how wishes show."""

from uuid import uuid4

from hypothesis import given
from hypothesis import strategies as st

from schema.tables.sync import CommandKind, MessageState
from tasks.sync.commands.overlay import Shown, Wish, overlay
from tasks.sync.commands.values import (
    Already,
    At,
    Change,
    Gone,
    Later,
    Place,
    agrees,
    grouped,
    locate,
    wished,
)

INBOX, ARCHIVE, TRASH = (Place(number, name, 10 + number, ()) for number, name in enumerate("IAT", start=1))


def change(kind: CommandKind, *places: Place, target: Place | None = None, **other: object) -> Change:
    """A command about a message that lay in INBOX."""
    values: dict[str, object] = {
        "id": 1,
        "uid": uuid4(),
        "kind": kind,
        "folder_id": INBOX.folder_id,
        "target_id": target.folder_id if target else None,
        "add": (),
        "remove": (),
        "tries": 0,
        "sent": False,
        "message_id": 1,
        "message_uid": uuid4(),
        "message_state": MessageState.PRESENT,
        "name": "<1@x>",
        "size": 1,
        "digest": b"",
        "places": places,
    }
    return Change(**(values | other))  # type: ignore[arg-type]


def test_a_command_finds_its_message_where_it_was_or_in_the_only_other_place() -> None:
    delete = CommandKind.DELETE
    assert locate(change(delete, ARCHIVE, INBOX)) == At(INBOX)
    assert locate(change(delete, ARCHIVE)) == At(ARCHIVE)
    assert isinstance(locate(change(delete, ARCHIVE, TRASH)), Gone)
    assert locate(change(delete)) == Later()
    assert locate(change(delete, message_state=MessageState.DELETED)) == Already()
    assert isinstance(locate(change(CommandKind.MARK, message_state=MessageState.DELETED)), Gone)


def test_a_move_that_is_done_is_done_and_one_half_done_is_finished() -> None:
    move = CommandKind.MOVE
    assert locate(change(move, ARCHIVE, target=ARCHIVE)) == Already()
    assert locate(change(move, INBOX, ARCHIVE, target=ARCHIVE)) == Already()
    assert locate(change(move, INBOX, ARCHIVE, target=ARCHIVE, sent=True)) == At(INBOX, ARCHIVE)
    assert locate(change(CommandKind.COPY, INBOX, ARCHIVE, target=ARCHIVE, sent=True)) == Already()


def test_what_asks_for_the_same_in_the_same_folder_goes_together() -> None:
    seen = change(CommandKind.MARK, INBOX, add=("\\Seen",))
    flagged = change(CommandKind.MARK, INBOX, add=("\\Flagged",))

    groups = grouped([(seen, At(INBOX)), (flagged, At(INBOX)), (seen, At(INBOX)), (seen, At(TRASH))])

    assert [(group.folder_id, group.add, len(group.items)) for group in groups] == [
        (1, ("\\Seen",), 2),
        (1, ("\\Flagged",), 1),
        (3, ("\\Seen",), 1),
    ]


FLAGS = st.sets(st.sampled_from(["\\Seen", "\\Flagged", "\\Answered", "\\SEEN", "work"]), max_size=5)


@given(FLAGS, st.sets(st.sampled_from(["\\Seen", "\\Flagged"])), st.sets(st.sampled_from(["\\Answered"])))
def test_a_wish_for_flags_fulfilled_is_fulfilled(has: set[str], add: set[str], remove: set[str]) -> None:
    then = wished(tuple(has), tuple(add), tuple(remove))

    assert agrees(then, tuple(add), tuple(remove))
    assert "work" not in has or "work" in then
    assert {flag.lower() for flag in add} <= {flag.lower() for flag in then}
    assert not {flag.lower() for flag in remove} & {flag.lower() for flag in then}


def shown(place: Place, *flags: str) -> Shown:
    return Shown(place.folder_id, place.folder, place.folder_id, place.uid, flags)


def test_wishes_show_in_their_order() -> None:
    move = Wish(CommandKind.MOVE, 1, 2, "A")
    mark = Wish(CommandKind.MARK, 1, add=("\\Seen",))
    back = Wish(CommandKind.MOVE, 1, 1, "I")

    assert overlay([shown(INBOX)], [move, mark]) == [Shown(2, "A", 1, None, ("\\Seen",), pending=True)]
    assert [place.folder for place in overlay([shown(INBOX)], [move, back])] == ["I"]
    assert overlay([shown(INBOX), shown(ARCHIVE)], [Wish(CommandKind.DELETE, 1)]) == [shown(ARCHIVE)]
    assert [place.folder for place in overlay([shown(INBOX)], [Wish(CommandKind.COPY, 1, 3, "T")])] == [
        "I",
        "T",
    ]


def test_a_message_on_its_way_shows_where_it_will_be() -> None:
    assert overlay([], [Wish(CommandKind.MOVE, 1, 2, "A")]) == [Shown(2, "A", 1, None, (), pending=True)]


def test_a_wish_that_came_true_changes_nothing_more() -> None:
    assert overlay([shown(ARCHIVE)], [Wish(CommandKind.MOVE, 1, 2, "A")]) == [shown(ARCHIVE)]
    assert overlay([shown(INBOX), shown(ARCHIVE)], [Wish(CommandKind.COPY, 1, 2, "A")]) == [
        shown(INBOX),
        shown(ARCHIVE),
    ]
