"""What the kernel tells of a socket."""

import select


def readable(fd: int) -> bool:
    """Whether bytes, an end or an error wait to be read, now."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))
