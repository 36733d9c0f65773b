"""The log replayed from zero: what each event does, and which cannot follow which."""

from typing import Any

import pytest

from lab.replay import Inconsistent, Lies, Told, replay

FOLDERS = [Told("folder.appeared", f"id of {name}", {"folder": name}) for name in ("INBOX", "Archive")]


def received(message: str = "m", folder: str = "INBOX", uid: int = 7, flags: tuple[str, ...] = ()) -> Told:
    return Told("message.received", message, {"folder": folder, "imap_uid": uid, "flags": list(flags)})


def about(kind: str, message: str = "m", **data: Any) -> Told:
    return Told(f"message.{kind}", message, data)


def test_a_message_is_followed_from_its_coming_to_its_end() -> None:
    story = [
        *FOLDERS,
        received(),
        about("flags_changed", folder="INBOX", imap_uid=7, flags=["\\Seen"]),
        about("copied", folder="Archive", imap_uid=3, flags=["\\Seen"]),
        about("moved", left="INBOX"),
    ]

    assert replay(story).messages == {"m": {"Archive": Lies(3, ("\\Seen",))}}
    assert replay([*story, about("deleted")]).messages == {}


def test_a_move_takes_every_place_or_the_one_it_names() -> None:
    copied = [*FOLDERS, received(), about("copied", folder="Archive", imap_uid=3, flags=[])]
    third = Told("folder.appeared", "id", {"folder": "Third"})
    to = {"folder": "Third", "imap_uid": 1, "flags": ["\\Flagged"]}
    lies = Lies(1, ("\\Flagged",))

    assert replay([*copied, third, about("moved", **to)]).messages["m"] == {"Third": lies}
    assert replay([*copied, third, about("moved", left="INBOX", **to)]).messages["m"] == {
        "Archive": Lies(3, ()),
        "Third": lies,
    }


def test_a_reset_forgets_numbers_and_nothing_else() -> None:
    reset = Told("folder.reset", "id of INBOX", {"folder": "INBOX"})
    story = [*FOLDERS, received(flags=("\\Seen",)), reset]

    assert replay(story).messages == {"m": {"INBOX": Lies(None, ("\\Seen",))}}
    again = about("flags_changed", folder="INBOX", imap_uid=900, flags=[])
    assert replay([*story, again]).messages == {"m": {"INBOX": Lies(900, ())}}


def test_a_vanished_folder_takes_its_places_along() -> None:
    vanished = Told("folder.vanished", "id of INBOX", {"folder": "INBOX"})
    state = replay([*FOLDERS, received(), received("n", "Archive", 1), vanished])

    assert state.folders == {"Archive": "id of Archive"}
    assert state.messages == {"m": {}, "n": {"Archive": Lies(1, ())}}


def test_a_renamed_folder_takes_its_places_along() -> None:
    renamed = Told("folder.renamed", "id of INBOX", {"folder": "Old", "was": "INBOX"})
    state = replay([*FOLDERS, received(), received("n", "Archive", 1), renamed])

    assert state.folders == {"Old": "id of INBOX", "Archive": "id of Archive"}
    assert state.messages == {"m": {"Old": Lies(7, ())}, "n": {"Archive": Lies(1, ())}}


@pytest.mark.parametrize(
    ("then", "why"),
    [
        (received(), "announced twice"),
        (about("copied", folder="INBOX", imap_uid=8, flags=[]), "lies in INBOX already"),
        (about("copied", folder="Elsewhere", imap_uid=8, flags=[]), "Elsewhere is not there"),
        (about("moved", left="Archive"), "where it did not lie"),
        (about("moved", left="INBOX"), "its only folder"),
        (about("flags_changed", folder="INBOX", imap_uid=9, flags=[]), "its UID there is 7"),
        (about("flags_changed", folder="Archive", imap_uid=9, flags=[]), "does not lie in Archive"),
        (about("deleted", message="nobody"), "never announced"),
        (Told("folder.reset", "another id", {"folder": "INBOX"}), "no such folder"),
        (Told("folder.appeared", "another id", {"folder": "INBOX"}), "there already"),
        (Told("folder.renamed", "another id", {"folder": "Old", "was": "INBOX"}), "no such folder"),
        (Told("folder.renamed", "id of INBOX", {"folder": "Archive", "was": "INBOX"}), "has that name"),
    ],
)
def test_what_cannot_follow_is_said(then: Told, why: str) -> None:
    with pytest.raises(Inconsistent, match=why):
        replay([*FOLDERS, received(), then])


def test_nothing_follows_an_end() -> None:
    for then in (received(), about("deleted"), about("moved", folder="Archive", imap_uid=1, flags=[])):
        with pytest.raises(Inconsistent, match="deleted"):
            replay([*FOLDERS, received(), about("deleted"), then])
