"""The error tree: what the user can fix, what time will fix, what only we can fix.

A message says what happened, to what, and what to do next; never a secret, never a mail body.
"""


class MailwrightError(Exception):
    """Any error of ours; ``str()`` of it is fit for a person to read."""

    code = "error"


class UserError(MailwrightError):
    """The caller can fix it: bad input, a missing right, a missing setting."""

    code = "invalid"


class NotFound(UserError):
    """The named thing does not exist."""

    code = "not_found"


class Conflict(UserError):
    """The wish contradicts what is stored: a taken name, a thing in use."""

    code = "conflict"


class PermissionDenied(UserError):
    """The actor lacks an operation."""

    code = "permission_denied"


class TransientError(MailwrightError):
    """Time will fix it: a server that is down, a lost lease, a time-out."""

    code = "try_later"


class LeaseLost(TransientError):
    """Another process holds the lease now; whatever was not committed is dropped."""

    code = "lease_lost"


class InternalError(MailwrightError):
    """Only the project can fix it."""

    code = "internal"
