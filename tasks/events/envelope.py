"""An event as CloudEvents 1.0 JSON."""

from typing import Any

from sqlalchemy import Row

SOURCE = "mailwright"


def cloudevent(row: Row[Any]) -> dict[str, Any]:
    """The structured-mode JSON of one row of the log (CloudEvents 1.0 §3). ``sequence`` is the position
    as text, which orders the events of a mailbox."""
    event = {
        "specversion": "1.0",
        "id": str(row.uid),
        "source": SOURCE,
        "type": f"mailwright.{row.type}",
        "subject": row.subject,
        "time": row.at.isoformat(),
        "datacontenttype": "application/json",
        "sequence": str(row.position),
        "data": row.data,
    }
    if row.correlation:
        event["correlationid"] = row.correlation
    return event
