"""Whose mail: mailboxes, their sealed passwords, their states, and the test of their connections."""

from tasks.mailboxes.health import login_refused, login_worked, resume_due
from tasks.mailboxes.lanes import refresh_lanes, refresh_provider_lanes
from tasks.mailboxes.lookup import find, get, listing
from tasks.mailboxes.refreshing import open_route
from tasks.mailboxes.rights import may_read, may_send, require_change, require_read, require_send
from tasks.mailboxes.routing import route
from tasks.mailboxes.values import Changes, NewMailbox, NotReady, Protocol, Route
from tasks.mailboxes.why import not_ready

__all__ = [
    "Changes",
    "NewMailbox",
    "NotReady",
    "Protocol",
    "Route",
    "find",
    "get",
    "listing",
    "login_refused",
    "login_worked",
    "may_read",
    "may_send",
    "not_ready",
    "open_route",
    "refresh_lanes",
    "refresh_provider_lanes",
    "require_change",
    "require_read",
    "require_send",
    "resume_due",
    "route",
]
