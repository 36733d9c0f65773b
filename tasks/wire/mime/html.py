"""HTML of strangers: the words in it."""

from __future__ import annotations

import html as entities
import re

import nh3

_BLOCK = re.compile(
    r"<(?=/?(?:address|article|br|dd|div|dl|dt|h[1-6]|hr|li|ol|p|pre|section|table|td|th|title|tr|ul)\b)",
    re.IGNORECASE,
)


def html_text(html: str) -> str:
    """The text of ``html``, without scripts and styles, blocks divided by white space."""
    return entities.unescape(nh3.clean(_BLOCK.sub("\n<", html), tags=set(), link_rel=None))
