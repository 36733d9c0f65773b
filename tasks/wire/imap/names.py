"""Folder names on the wire and for people (RFC 3501 §5.1.3, RFC 9051 §5.1), and what folders are for."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final

from imapclient.imap_utf7 import decode as decode_utf7
from imapclient.imap_utf7 import encode as encode_utf7

from tasks.wire.imap.items import ListItems
from tasks.wire.imap.values import ListedFolder

USES: Final = {
    use.lower(): use
    for use in ("\\All", "\\Archive", "\\Drafts", "\\Flagged", "\\Important", "\\Junk", "\\Sent", "\\Trash")
}
"""RFC 6154 §2 and RFC 8457."""
XLIST_USES: Final = {"\\allmail": "\\All", "\\spam": "\\Junk", "\\starred": "\\Flagged"}

WELL_KNOWN: Final = {
    "\\Sent": (
        "sent|sent mail|sent items|sent messages|sent-mail|gesendet|gesendete elemente|gesendete objekte"
        "|envoyés|éléments envoyés|messages envoyés|enviados|elementos enviados|posta inviata|inviati"
        "|verzonden|verzonden items|skickat|sendt|wysłane|odeslané|отправленные|надіслані|itens enviados"
    ),
    "\\Drafts": "drafts|draft|entwürfe|brouillons|borradores|bozze|concepten|rascunhos|черновики",
    "\\Trash": "trash|deleted items|deleted messages|deleted|papierkorb|corbeille|papelera|cestino|корзина",
    "\\Junk": "junk|spam|junk e-mail|junk email|bulk mail|bulk|junk-e-mail|courrier indésirable|спам",
}
"""Last parts of folder names, case folded, the likeliest first; used where the server tells no such use."""


def shown_name(wire_name: bytes) -> str:
    """A folder's name for people.

    Modified UTF-7, or UTF-8 where there are 8-bit bytes; what is neither is shown as it came.
    """
    try:
        name = wire_name.decode("utf-8") if max(wire_name, default=0) > 127 else decode_utf7(wire_name)
    except (UnicodeDecodeError, ValueError):
        name = ""
    if name and name.isprintable():
        return str(name)
    text = wire_name.decode("utf-8", "backslashreplace")
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)


def wire_name(name: str) -> bytes:
    """A name as it must be told to a server (modified UTF-7)."""
    return bytes(encode_utf7(name))


def listed(
    items: Iterable[ListItems], personal: Callable[[bytes], bool] = lambda _: True
) -> list[ListedFolder]:
    """Folders as LIST told them, each once, special uses guessed where none was told; ``personal`` tells by
    its name whether one is the user's own."""
    folders: dict[bytes, ListedFolder] = {}
    for item in items:
        name = b"INBOX" if item.name.upper() == b"INBOX" else item.name
        folders.setdefault(name, replace(_folder(item, name), personal=personal(name)))
    found = list(folders.values())
    for use, names in WELL_KNOWN.items():
        if all(folder.special_use != use for folder in found):
            found = _guess(found, use, names.split("|"))
    return found


def _folder(item: ListItems, name: bytes) -> ListedFolder:
    lower = {word.lower() for word in item.attributes}
    uses = [(USES | XLIST_USES)[word] for word in sorted(lower) if word in USES or word in XLIST_USES]
    return ListedFolder(
        wire_name=name,
        name=shown_name(name),
        delimiter=item.delimiter,
        attributes=item.attributes,
        special_use=uses[0] if uses else None,
        selectable=not lower & {"\\noselect", "\\nonexistent"},
    )


def _guess(folders: list[ListedFolder], use: str, names: list[str]) -> list[ListedFolder]:
    """Give ``use`` to the folder with the likeliest name, the least deep one of several."""
    ranked = [
        (names.index(leaf), depth, place)
        for place, folder in enumerate(folders)
        for leaf, depth in [_leaf(folder)]
        if leaf in names and folder.selectable and folder.special_use is None and depth <= 1
        if folder.personal
    ]
    if not ranked:
        return folders
    place = min(ranked)[2]
    return [*folders[:place], replace(folders[place], special_use=use), *folders[place + 1 :]]


def _leaf(folder: ListedFolder) -> tuple[str, int]:
    levels = folder.name.split(folder.delimiter) if folder.delimiter else [folder.name]
    return levels[-1].casefold(), len(levels) - 1
