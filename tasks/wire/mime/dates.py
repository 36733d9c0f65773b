"""The Date field (RFC 5322 §3.3, with the obsolete forms of §4.3)."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_tz
from types import MappingProxyType
from typing import Final

MAX_DATE: Final = 200
_MONTHS: Final = MappingProxyType(
    {
        name: f"{number:02}"
        for number, name in enumerate(
            ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"], 1
        )
    }
)
_USUAL = re.compile(
    r"(?:[A-Z][a-z]{2}, *)?([0-9]{1,2}) ([A-Z][a-z]{2}) ([0-9]{4}) ([0-9]{2}:[0-9]{2})(:[0-9]{2})?"
    r" ([+-][0-9]{2})([0-9]{2})(?: \([^()]*\))?\Z"
)


def parse_date(value: str) -> datetime | None:
    """Return the moment in UTC, or None where there is none. No zone, or ``-0000``, is taken as UTC."""
    try:
        match = _USUAL.match(value)
        month = _MONTHS.get(match[2]) if match else None
        if match and month:
            day, _, year, clock, second, hours, minutes = match.groups()
            written = f"{year}-{month}-{day:0>2}T{clock}{second or ':00'}{hours}:{minutes}"
            return datetime.fromisoformat(written).astimezone(UTC)
        parsed = parsedate_tz(value[:MAX_DATE])
        if parsed is None:
            return None
        local = datetime(*parsed[:6], tzinfo=UTC)
        offset = parsed[9] or 0
        if abs(offset) >= 86_400:
            return None
        return local - timedelta(seconds=offset)
    # parsedate_tz itself trips over some junk (IndexError, TypeError), differing by Python version.
    except (ValueError, OverflowError, IndexError, TypeError):
        return None
