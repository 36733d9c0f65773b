"""From a host name, looked up within a bound of its own, to a connected socket within the budget."""

import errno
import ipaddress
import os
import queue
import socket
import threading
from dataclasses import dataclass
from typing import Any, Final

from tasks.wire.net.budget import Budget
from tasks.wire.net.errors import ConnectFailed, NetError, ResolveFailed, TimedOut
from tasks.wire.net.patience import WRITE, Patience
from tasks.wire.net.sockets import AnySocket, PatientSocket
from tasks.wire.net.tls import wrap
from tasks.wire.net.values import Endpoint, Security, Step

MOST_ADDRESSES: Final = 8
"""Addresses of one host that are tried."""
LOOKUP: Final = 10.0
"""Seconds that a look-up may take. They are no server's doing, so no budget counts them."""
MOST_LOOKUPS: Final = 64
"""Look-ups under way in one process; a dead name server must not gather threads without end."""

_lookups = threading.BoundedSemaphore(MOST_LOOKUPS)


@dataclass(frozen=True, slots=True)
class Address:
    """What ``socket.connect`` wants."""

    family: socket.AddressFamily
    sockaddr: tuple[Any, ...]


def resolve(host: str, port: int, timeout: float) -> list[Address]:
    """Addresses of ``host`` in the system's order, at most `MOST_ADDRESSES`.

    ``getaddrinfo`` obeys no time-out, so it runs in a thread of its own that is left behind after
    ``timeout`` seconds. Raises `ResolveFailed`.
    """
    endpoint = Endpoint(host, port, Security.NONE)
    if _is_literal(host):
        return _literal(endpoint)
    if not _lookups.acquire(timeout=timeout):
        raise _no_answer(endpoint)
    answer: queue.SimpleQueue[list[Address] | Exception] = queue.SimpleQueue()

    def look_up() -> None:
        try:
            answer.put(_addresses(host, port, 0))
        except (OSError, UnicodeError) as error:
            answer.put(error)
        finally:
            _lookups.release()

    threading.Thread(target=look_up, name=f"resolve {host}", daemon=True).start()
    try:
        found = answer.get(timeout=timeout)
    except queue.Empty:
        raise _no_answer(endpoint) from None
    if isinstance(found, socket.gaierror) and found.errno == socket.EAI_AGAIN:
        raise _no_answer(endpoint) from found
    if isinstance(found, Exception):
        raise _no_host(endpoint) from found
    return found


def _literal(endpoint: Endpoint) -> list[Address]:
    try:
        return _addresses(endpoint.host, endpoint.port, socket.AI_NUMERICHOST)
    except OSError as error:  # an unknown zone behind "%"
        raise _no_host(endpoint) from error


def _addresses(host: str, port: int, flags: int) -> list[Address]:
    told = socket.getaddrinfo(host.encode("ascii"), port, type=socket.SOCK_STREAM, flags=flags)
    unique = dict.fromkeys((family, sockaddr) for family, _, _, _, sockaddr in told)
    return [Address(family, sockaddr) for family, sockaddr in unique][:MOST_ADDRESSES]


def _is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _no_host(endpoint: Endpoint) -> ResolveFailed:
    return ResolveFailed(
        f'There is no host "{endpoint.host}"',
        endpoint,
        Step.RESOLVE,
        "Check the host name for typing errors.",
    )


def _no_answer(endpoint: Endpoint) -> ResolveFailed:
    return ResolveFailed(
        f'No name server told the address of "{endpoint.host}" in time',
        endpoint,
        Step.RESOLVE,
        "Check this machine's network and name servers, or try again later.",
    )


def dial(endpoint: Endpoint, budget: Budget, *, connect_timeout: float = 10.0) -> AnySocket:
    """Connect, with TLS at once for `Security.TLS`.

    The addresses share what is left of the budget, none getting more than ``connect_timeout``
    seconds. Raises `ResolveFailed`, `ConnectFailed`, `TimedOut`, `TlsFailed`, `Disconnected`.
    """
    sock = connect(endpoint, find(endpoint), budget, connect_timeout)
    dialled = wrap(sock, endpoint, budget, Step.TLS) if endpoint.security is Security.TLS else sock
    dialled.step = Step.GREETING
    return dialled


def find(endpoint: Endpoint) -> list[Address]:
    """`resolve` within `LOOKUP` seconds."""
    return resolve(endpoint.host, endpoint.port, LOOKUP)


def connect(
    endpoint: Endpoint, addresses: list[Address], budget: Budget, connect_timeout: float
) -> PatientSocket:
    """Connect to the first address that takes it; raises `ConnectFailed` or `TimedOut` of the last."""
    failure: NetError | None = None
    for index, address in enumerate(addresses):
        share = min(connect_timeout, budget.left() / (len(addresses) - index))
        try:
            return _connect(endpoint, address, budget, share)
        except (ConnectFailed, TimedOut) as error:
            failure = error
    assert failure is not None, "getaddrinfo gives at least one address"
    raise failure


def _connect(endpoint: Endpoint, address: Address, budget: Budget, share: float) -> PatientSocket:
    part = Budget(share)
    try:
        sock = PatientSocket(address.family, socket.SOCK_STREAM)
    except OSError as error:  # IPv6 switched off, or no file descriptor left
        raise _not_connected(endpoint, error.errno or errno.EIO) from error
    sock.patience = Patience(endpoint, part, Step.CONNECT)
    try:
        sock.settimeout(None)
        problem = sock.connect_ex(address.sockaddr)
        if problem == errno.EINPROGRESS:
            sock.patience.wait(sock.fileno(), WRITE)
            problem = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if problem:
            raise _not_connected(endpoint, problem)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    except BaseException:
        sock.close()
        raise
    finally:
        budget.spend(part.waited)
    sock.budget = budget
    return sock


def _not_connected(endpoint: Endpoint, problem: int) -> ConnectFailed:
    if problem == errno.ECONNREFUSED:
        return ConnectFailed(
            f"{endpoint} refused the connection",
            endpoint,
            Step.CONNECT,
            "Check the port; the server may be down, or a firewall in the way.",
        )
    return ConnectFailed(
        f"{endpoint} cannot be reached: {os.strerror(problem).lower()}",
        endpoint,
        Step.CONNECT,
        "Check this machine's network, the host and the port.",
    )
