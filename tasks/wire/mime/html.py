"""HTML of strangers: the words in it, and what of it is safe to show."""

from __future__ import annotations

import html as entities
import re
from types import MappingProxyType
from typing import Final

import nh3

LINKS: Final = frozenset({"http", "https", "mailto", "tel"})
"""What a link may lead to. Only who follows it tells anyone that the mail was read."""

_BLOCK = re.compile(
    r"<(?=/?(?:address|article|br|dd|div|dl|dt|h[1-6]|hr|li|ol|p|pre|section|table|td|th|title|tr|ul)\b)",
    re.IGNORECASE,
)
_UNSEEN = frozenset({"script", "style", "title", "noscript", "template"})
_TAGS = frozenset(nh3.ALLOWED_TAGS - {"area", "map"} | {"font", "big"})
_ATTRIBUTES = MappingProxyType(
    {
        "*": frozenset({"align", "dir", "lang", "title", "valign"}),
        "a": frozenset({"href"}),
        "img": frozenset({"src", "alt", "width", "height"}),
        "font": frozenset({"color", "face", "size"}),
        "ol": frozenset({"start", "type"}),
        "table": frozenset({"border", "cellpadding", "cellspacing", "width", "bgcolor"}),
        "td": frozenset({"colspan", "rowspan", "width", "height", "bgcolor"}),
        "th": frozenset({"colspan", "rowspan", "scope", "width", "height", "bgcolor"}),
        "tr": frozenset({"bgcolor"}),
    }
)


def html_text(html: str) -> str:
    """The text of ``html``, without scripts and styles, blocks divided by white space."""
    return entities.unescape(nh3.clean(_BLOCK.sub("\n<", html), tags=set(), link_rel=None))


def clean_html(html: str) -> str:
    """What of ``html`` can be shown: nothing in it runs, sends, or is fetched from anywhere.

    Left are text, structure, links (`LINKS`, absolute) and images that came with the mail (``cid:``,
    RFC 2392). Scripts, event handlers, styles, forms, frames and everything not known to be harmless goes.
    """
    return nh3.clean(
        html,
        tags=set(_TAGS),
        clean_content_tags=set(_UNSEEN),
        attributes={tag: set(names) for tag, names in _ATTRIBUTES.items()},
        attribute_filter=_reference,
        url_schemes={*LINKS, "cid"},
        url_relative="deny",
        link_rel="noopener noreferrer",
    )


def _reference(tag: str, attribute: str, value: str) -> str | None:
    """Images only from the mail itself, links only out of it."""
    inside = value.strip().lower().startswith("cid:")
    if attribute == "src":
        return value if inside else None
    return None if attribute == "href" and inside else value
