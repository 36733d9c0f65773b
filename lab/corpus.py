"""Mail of mixed shape, the same bytes for the same seed: plain, encoded, nested, threaded, broken.

``generate`` yields messages with CRLF line ends; their sizes are spread log-normally. More than
half have more MIME to them than one plain text. Bodies are cut from pools that are encoded once.
"""

import base64
import math
import quopri
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.header import Header
from email.utils import format_datetime
from random import Random
from typing import Final
from urllib.parse import quote

SPREAD: Final = 1.2
"""Standard deviation of the logarithm of the sizes."""
START: Final = datetime(2019, 1, 7, 8, tzinfo=UTC)
B64_LINE: Final = 57
"""Bytes to a base64 line of 76 characters (RFC 2045 §6.8)."""

SENTENCES: Final = {
    "en": "the meeting moves to Thursday please find enclosed our offer invoice and minutes",
    "de": "größere Änderungen für Montag bitte prüfen Sie die Übersicht und grüßen Müller schließlich",
    "fr": "veuillez trouver ci-joint le relevé réglé après février où l'équipe préfère être là",
    "ru": "добрый день прошу проверить договор и счёт за сентябрь спасибо заранее",
    "ja": "お世話になっております 会議 資料 添付 ご確認 お願い 致します 来週 月曜日",
    "zh": "您好 请 查收 附件 会议 下周 星期一 谢谢 报告 已经 完成",
}
WORDS: Final = {lang: sentence.split() for lang, sentence in SENTENCES.items()}
PEOPLE: Final = (
    ("Anna Berg", "anna"), ("Jörg Müller", "joerg"), ("Zoë Lefèvre", "zoe"), ("Иван Петров", "ivan"),
    ("山田太郎", "taro"), ("Smith, John (Sales)", "john.smith"), ("", "noreply"), ("王小明", "xiaoming"),
)  # fmt: skip
DOMAINS: Final = ("example.org", "example.com", "firma.example", "lists.example.net", "xn--bcher-kva.example")
FILES: Final = (
    ("report.pdf", "application/pdf"), ("Übersicht März.xlsx", "application/vnd.ms-excel"),
    ("photo 1.jpg", "image/jpeg"), ("договор.docx", "application/octet-stream"), ("data.csv", "text/csv"),
    ("日程表.zip", "application/zip"), ("notes; final.txt", "text/plain"),
)  # fmt: skip


def generate(count: int, seed: int = 1, mean_size: int = 26_000) -> Iterator[bytes]:
    """Yield ``count`` messages of ``mean_size`` bytes on average.

    Message-IDs never repeat; one in a hundred has none. Replies name messages yielded before.
    """
    pools = _Pools.make(Random(seed))
    recent: deque[_Thread] = deque(maxlen=200)
    centre = math.log(max(mean_size - 700, 500)) - SPREAD**2 / 2  # 700: what headers and part heads take
    for index in range(count):
        random = Random(seed * 1_000_003 + index)
        size = int(min(random.lognormvariate(centre, SPREAD), 60 * mean_size))
        draft = _Draft(index, seed, random, pools, size, recent)
        (make,) = random.choices(_SHAPES, _WEIGHTS)
        yield make(draft)


def small(count: int, seed: int = 1) -> Iterator[bytes]:
    """Yield ``count`` messages of the same shapes, about 2 KB each."""
    return generate(count, seed, 2_000)


@dataclass(frozen=True, slots=True)
class _Thread:
    message_id: str
    references: str
    subject: bytes


@dataclass(frozen=True, slots=True)
class _Pools:
    """Encoded text by (language, charset, encoding) as whole paragraphs, and one big base64 text."""

    texts: dict[tuple[str, str, str], list[bytes]]
    binary: bytes

    @classmethod
    def make(cls, random: Random) -> "_Pools":
        plain = {lang: [_paragraph(random, lang) for _ in range(160)] for lang in WORDS}
        texts = {}
        for lang, charset, encoding in _TEXTS:
            texts[lang, charset, encoding] = [_encode(part, charset, encoding) for part in plain[lang]]
        raw = random.randbytes(B64_LINE * 12_000)
        return cls(texts, base64.encodebytes(raw).replace(b"\n", b"\r\n"))

    def text(self, random: Random, kind: tuple[str, str, str], size: int) -> bytes:
        """About ``size`` bytes of encoded text: whole paragraphs from a random one on, around and around."""
        units = self.texts[kind]
        at = random.randrange(len(units))
        parts: list[bytes] = []
        length = 0
        while length < size or not parts:
            unit = units[at % len(units)]
            parts.append(unit if size - length >= len(unit) else units[_shortest(units, size - length)])
            length += len(parts[-1])
            at += 1
        return b"".join(parts)

    def attachment(self, random: Random, size: int) -> bytes:
        """About ``size`` bytes of base64 lines that start like no other attachment."""
        head = base64.encodebytes(random.randbytes(B64_LINE)).replace(b"\n", b"\r\n")
        lines = max(size // 78, 1)
        start = random.randrange(11_000) * 78
        body = self.binary[start : start + lines * 78]
        while len(body) < lines * 78:
            body += self.binary[: lines * 78 - len(body)]
        return head + body


_UTF8, _ASCII = ("de", "utf-8", "quoted-printable"), ("en", "us-ascii", "7bit")
_CHARSETS: Final = (
    ("fr", "iso-8859-1", "base64"), ("ru", "koi8-r", "base64"), ("ja", "iso-2022-jp", "base64"),
    ("zh", "gb2312", "base64"), ("ru", "windows-1251", "8bit"), ("ja", "iso-2022-jp", "7bit"),
    ("fr", "iso-8859-1", "quoted-printable"), ("zh", "utf-8", "base64"), ("de", "utf-8", "8bit"),
)  # fmt: skip
_TEXTS: Final = (_ASCII, _UTF8, *_CHARSETS)


def _paragraph(random: Random, lang: str) -> str:
    words = WORDS[lang]
    lines = [" ".join(random.choices(words, k=random.randint(4, 9))) for _ in range(random.randint(1, 12))]
    return "\r\n".join([*lines, "", ""])


def _encode(text: str, charset: str, encoding: str) -> bytes:
    """One paragraph as it stands in a body; base64 ones fill whole lines, so that they can be joined."""
    data = text.encode(charset)
    if encoding == "base64":
        data += b" " * (-len(data) % B64_LINE)
        return base64.encodebytes(data).replace(b"\n", b"\r\n")
    if encoding == "quoted-printable":
        return quopri.encodestring(data.replace(b"\r\n", b"\n")).replace(b"\n", b"\r\n")
    return data


def _shortest(units: list[bytes], room: int) -> int:
    """A paragraph that overshoots little: the first of a few that fits, else the first."""
    return next((at for at, unit in enumerate(units[:40]) if len(unit) <= max(room, 80)), 0)


@dataclass(slots=True)
class _Draft:
    """One message in the making."""

    index: int
    seed: int
    random: Random
    pools: _Pools
    size: int
    recent: deque[_Thread]
    boundaries: int = field(default=0)

    def boundary(self) -> bytes:
        self.boundaries += 1
        return b"=_%x_%d_%d" % (self.random.getrandbits(48), self.index, self.boundaries)

    def text(self, kind: tuple[str, str, str], size: int, subtype: bytes = b"plain") -> bytes:
        """A text part: its header, an empty line, its body."""
        _, charset, encoding = kind
        body = self.pools.text(self.random, kind, size)
        if subtype == b"html" and encoding != "base64":
            body = (
                b"<html><body><p>\r\n" + body.replace(b"\r\n\r\n", b"</p>\r\n<p>") + b"</p></body></html>\r\n"
            )
        head = f"charset={charset}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n".encode()
        return b"Content-Type: text/%s; %s%s" % (subtype, head, body)

    def multipart(self, subtype: str, parts: list[bytes], parameters: str = "") -> bytes:
        mark = self.boundary()
        inner = b"".join(b"--%s\r\n%s\r\n" % (mark, part) for part in parts)
        head = f'Content-Type: multipart/{subtype};{parameters}\r\n boundary="'.encode()
        return b'%s%s"\r\n\r\nThis is a MIME message.\r\n%s--%s--\r\n' % (head, mark, inner, mark)

    def file(self, size: int, disposition: bytes = b"attachment", extra: bytes = b"") -> bytes:
        name, kind = self.random.choice(FILES)
        if self.random.random() < 0.5:  # RFC 2231
            title = f"filename*=utf-8''{quote(name)}"
        else:  # RFC 2047 where no RFC allows it, as much software does
            title = (
                f'filename="{Header(name, "utf-8", maxlinelen=400).encode() if not name.isascii() else name}"'
            )
        head = f"Content-Type: {kind}\r\n".encode()
        head += b"Content-Disposition: %s;\r\n %s\r\n%s" % (disposition, title.encode(), extra)
        body = self.pools.attachment(self.random, size)
        return head + b"Content-Transfer-Encoding: base64\r\n\r\n" + body

    def person(self) -> str:
        name, local = self.random.choice(PEOPLE)
        address = f"{local}@{self.random.choice(DOMAINS)}"
        if not name:
            return address
        return f'"{name}" <{address}>' if name.isascii() else f"{_WORDS_2047[name]} <{address}>"

    def head(self, extra: str = "", subject: bytes | None = None) -> bytes:
        """The header block without MIME fields; a third of all messages answer an earlier one."""
        random = self.random
        # The whole number keeps identifiers apart whatever the seed.
        me = f"<{self.index}.{self.seed}.{random.getrandbits(40):x}@{random.choice(DOMAINS)}>"
        lines = [f"From: {self.person()}", f"To: {self.person()}"]
        if random.random() < 0.2:
            lines.append(f"Cc: {self.person()},\r\n {self.person()}")
        references = ""
        if self.recent and random.random() < 0.33 and subject is None:
            parent = random.choice(self.recent)
            references = " ".join([*parent.references.split()[-9:], parent.message_id])
            lines += [f"In-Reply-To: {parent.message_id}", "References: " + references.replace(" ", "\r\n ")]
            subject = parent.subject if parent.subject.startswith(b"Re: ") else b"Re: " + parent.subject
        elif subject is None:
            subject = random.choice(_SUBJECTS) + b" %d" % self.index
        if random.random() >= 0.01:
            lines.append(f"Message-ID: {me}")
            self.recent.append(_Thread(me, references, subject))
        moment = START + timedelta(minutes=11 * self.index, seconds=random.randrange(600))
        lines += [f"Date: {format_datetime(moment)}", "MIME-Version: 1.0"]
        hop = f"Received: from mx.example.net by in.example.org;\r\n\t{format_datetime(moment)}"
        return (
            f"{hop}\r\n{extra}".encode() + "\r\n".join(lines).encode() + b"\r\nSubject: " + subject + b"\r\n"
        )


def _header(text: str, charset: str = "utf-8") -> bytes:
    return Header(text, charset).encode(linesep="\r\n").encode("ascii")


_WORDS_2047: Final = {name: Header(name, "utf-8").encode() for name, _ in PEOPLE if not name.isascii()}
_SUBJECTS: Final = (
    b"Invoice", b"Weekly report", b"Meeting", _header("Übersicht für März"), _header("Договор", "koi8-r"),
    _header("会議の資料", "iso-2022-jp"), _header("报告", "gb2312"), _header("Relevé réglé", "iso-8859-1"),
)  # fmt: skip


def _plain(d: _Draft) -> bytes:
    return d.head() + d.text(_ASCII, d.size)


def _quoted(d: _Draft) -> bytes:
    return d.head() + d.text(_UTF8, d.size)


def _charset(d: _Draft) -> bytes:
    return d.head() + d.text(d.random.choice(_CHARSETS), d.size)


def _both(d: _Draft, size: int) -> bytes:
    kind = d.random.choice((_ASCII, _UTF8, _UTF8, *_CHARSETS))
    return d.multipart("alternative", [d.text(kind, size // 3), d.text(kind, size * 2 // 3, b"html")])


def _alternative(d: _Draft) -> bytes:
    return d.head() + _both(d, d.size)


def _attached(d: _Draft) -> bytes:
    words = min(d.size // 3, 4_000)
    count = d.random.randint(1, 3)
    files = [d.file((d.size - words) // count) for _ in range(count)]
    body = _both(d, words) if d.random.random() < 0.5 else d.text(_UTF8, words)
    return d.head() + d.multipart("mixed", [body, *files])


def _related(d: _Draft) -> bytes:
    image = d.file(d.size // 2, b"inline", b"Content-ID: <image%d@lab.example>\r\n" % d.index)
    html = d.text(_UTF8, d.size // 2, b"html").replace(
        b"<p>", b'<p><img src=3D"cid:image%d@lab.example">' % d.index, 1
    )
    return d.head() + d.multipart("related", [html, image], ' type="text/html";')


def _forwarded(d: _Draft) -> bytes:
    head = d.head()
    inner = b"From: a@example.org\r\nSubject: %s\r\nMIME-Version: 1.0\r\n" % d.random.choice(_SUBJECTS)
    message = b"Content-Type: message/rfc822\r\n\r\n" + inner + _both(d, d.size * 3 // 4)
    return head + d.multipart("mixed", [d.text(_ASCII, d.size // 4), message])


def _list(d: _Draft) -> bytes:
    extra = (
        "List-Id: Lab talk <talk.lists.example.net>\r\nList-Post: <mailto:talk@lists.example.net>\r\n"
        "List-Unsubscribe: <mailto:talk-leave@lists.example.net>, <https://lists.example.net/leave>\r\n"
        "List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\nPrecedence: list\r\n"
    )
    return d.head(extra) + d.text(d.random.choice((_ASCII, _UTF8)), d.size)


def _auto_reply(d: _Draft) -> bytes:
    return d.head("Auto-Submitted: auto-replied\r\n") + d.text(_UTF8, d.size)


def _report(d: _Draft) -> bytes:
    """A delivery report (RFC 3464)."""
    status = (
        b"Content-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mx.example.net\r\n\r\n"
        b"Final-Recipient: rfc822; gone@example.com\r\nAction: failed\r\nStatus: 5.1.1\r\n"
        b"Diagnostic-Code: smtp; 550 5.1.1 User unknown\r\n"
    )
    head = d.head("Auto-Submitted: auto-replied\r\n", b"Undelivered Mail Returned to Sender")
    returned = b"From: a@example.org\r\nMessage-ID: <lost.%d@example.org>\r\nSubject: lost\r\n" % d.index
    original = b"Content-Type: message/rfc822\r\n\r\n" + returned + d.text(_ASCII, d.size * 3 // 4)
    parts = [d.text(_ASCII, d.size // 4), status, original]
    return head + d.multipart("report", parts, " report-type=delivery-status;")


def _complaint(d: _Draft) -> bytes:
    """An abuse report (RFC 5965)."""
    feedback = (
        b"Content-Type: message/feedback-report\r\n\r\n"
        b"Feedback-Type: abuse\r\nUser-Agent: lab/1\r\nVersion: 1\r\n"
    )
    original = b"Content-Type: message/rfc822\r\n\r\nFrom: a@example.org\r\nSubject: ad\r\n" + d.text(
        _ASCII, d.size // 2
    )
    parts = [d.text(_ASCII, d.size // 2), feedback, original]
    return d.head(subject=b"FW: ad") + d.multipart("report", parts, " report-type=feedback-report;")


def _eight_bit_header(d: _Draft) -> bytes:
    charset = d.random.choice(("utf-8", "iso-8859-1"))
    return d.head(subject=f"Grüße aus Köln {d.index}".encode(charset)) + d.text(_UTF8, d.size)


def _broken(d: _Draft) -> bytes:
    fault, body = d.random.randrange(8), d.pools.text(d.random, _ASCII, d.size)
    if fault == 0:  # no header at all: RFC 5322 wants From and Date
        return b"\r\n%d\r\n" % d.index + body
    head = d.head()
    match fault:
        case 4:  # the boundary never closes
            return head + _both(d, d.size).rpartition(b"--")[0][:-40]
        case 1:  # no boundary parameter
            return head + b"Content-Type: multipart/mixed\r\n\r\n--x\r\n\r\n" + body
        case 2:  # nobody knows the character set
            return head + b"Content-Type: text/plain; charset=x-klingon\r\n\r\n" + body + b"\xff\xfe\r\n"
        case 3:  # NULs, and bytes that are no UTF-8
            return head + b"Content-Type: text/plain; charset=utf-8\r\n\r\n\0\0nul\0 \xc3\x28\r\n" + body
        case 5:  # a header field of many kilobytes
            return head + b"X-Huge: " + b"x" * min(60_000, d.size) + b"\r\n\r\n" + body
        case 6:  # base64 that is none
            return head + b"Content-Type: text/plain\r\nContent-Transfer-Encoding: base64\r\n\r\n!!%%" + body
        case _:  # multiparts within multiparts
            inner = d.text(_ASCII, d.size)
            for _ in range(30):
                inner = d.multipart("mixed", [inner])
            return head + inner


_Shape = Callable[[_Draft], bytes]
_MIX: Final[dict[_Shape, int]] = {
    _plain: 18, _quoted: 12, _charset: 12, _alternative: 18, _attached: 14, _related: 6, _forwarded: 4,
    _list: 5, _auto_reply: 2, _report: 3, _complaint: 1, _eight_bit_header: 2, _broken: 3,
}  # fmt: skip
_SHAPES: Final = list(_MIX)
_WEIGHTS: Final = list(_MIX.values())
