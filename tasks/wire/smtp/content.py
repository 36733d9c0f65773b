"""Message bytes as they go over the wire: CRLF everywhere, dots doubled (RFC 5321 §2.3.8, §4.5.2).

Bare CR and LF must not be sent: real servers refuse them, others read them as line ends, and the
difference is how mail is smuggled.
"""

import re
from typing import Final

_LINE_END: Final = re.compile(rb"\r\n|\r|\n")


def normalised(content: bytes) -> bytes:
    """``content`` with every line end, bare CR and bare LF included, as CRLF, and one at the end."""
    if not content.count(b"\n") == content.count(b"\r\n") == content.count(b"\r"):
        content = _LINE_END.sub(b"\r\n", content)
    if content and not content.endswith(b"\r\n"):
        content += b"\r\n"
    return content


def stuffed(content: bytes) -> bytes:
    """Normalised ``content`` with the dot at the start of a line doubled."""
    if content.startswith(b"."):
        content = b"." + content
    return content.replace(b"\r\n.", b"\r\n..")
