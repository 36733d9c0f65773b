"""Reading mail: raw bytes to values, bounded in time and memory, for any input. Knows no database."""

from tasks.wire.mime.html import clean_html, html_text
from tasks.wire.mime.read import part_bytes, read
from tasks.wire.mime.values import Address, Attachment, Limits, Mail, Report, ReportedRecipient

__all__ = [
    "Address",
    "Attachment",
    "Limits",
    "Mail",
    "Report",
    "ReportedRecipient",
    "clean_html",
    "html_text",
    "part_bytes",
    "read",
]
