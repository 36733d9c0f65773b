"""Ways in which no connection comes about, each told with its remedy."""

import datetime
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
import trustme

from lab.ports import free_port
from tasks.wire.net import (
    Budget,
    CertificateFault,
    ConnectFailed,
    Disconnected,
    Endpoint,
    Injected,
    NetError,
    PatientSocket,
    PatientTlsSocket,
    ResolveFailed,
    Security,
    Step,
    TimedOut,
    TlsFailed,
    dial,
    resolve,
    start_tls,
    tls_context,
)

Serve = Callable[[socket.socket], None]
AUTHORITY = trustme.CA()
CA = AUTHORITY.cert_pem.bytes().decode()


@contextmanager
def server(serve: Serve, host: str = "127.0.0.1", **options: int) -> Iterator[int]:
    """One connection, served in a thread; what serve raises because the client left is expected."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as listener:
        for name, value in options.items():
            listener.setsockopt(socket.SOL_SOCKET, getattr(socket, name), value)

        def run() -> None:
            with suppress(OSError):
                sock, _ = listener.accept()
                with sock:
                    serve(sock)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        thread.join(10)
        assert not thread.is_alive()


def context(*names: str, expired: bool = False, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    past = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    issued = AUTHORITY.issue_cert(*names, not_after=past) if expired else AUTHORITY.issue_cert(*names)
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if version is not None:
        made.set_ciphers("ALL:@SECLEVEL=0")
        made.minimum_version = made.maximum_version = version
    issued.configure_cert(made)
    return made


def secured(made: ssl.SSLContext) -> Serve:
    def serve(sock: socket.socket) -> None:
        with made.wrap_socket(sock, server_side=True) as tls:
            while received := tls.recv(65_536):
                tls.sendall(received)

    return serve


def until_closed(sock: socket.socket) -> None:
    """Say nothing until the client leaves."""
    while sock.recv(65_536):
        pass


def tls_endpoint(port: int, host: str = "localhost", ca: str | None = CA) -> Endpoint:
    return Endpoint(host, port, Security.TLS, ca)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_tls_with_a_private_authority(host: str) -> None:
    with server(secured(context("localhost", "127.0.0.1"))) as port:
        sock = dial(tls_endpoint(port, host), Budget(20))
        sock.sendall(b"hello")
        assert sock.recv(10) == b"hello"
        assert isinstance(sock, PatientTlsSocket)
        sock.close()


def test_an_ipv6_literal() -> None:
    with server(secured(context("::1")), "::1") as port:
        sock = dial(tls_endpoint(port, "::1"), Budget(20))
        sock.sendall(b"hello")
        assert sock.recv(10) == b"hello"
        sock.close()


@pytest.mark.parametrize(
    ("made", "ca", "fault"),
    [
        (context("localhost"), None, CertificateFault.ISSUER),
        (context("localhost"), trustme.CA().cert_pem.bytes().decode(), CertificateFault.ISSUER),
        (context("other.example"), CA, CertificateFault.HOST_NAME),
        (context("localhost", expired=True), CA, CertificateFault.EXPIRED),
    ],
    ids=["system trust", "another authority", "another name", "expired"],
)
def test_a_bad_certificate_is_told(made: ssl.SSLContext, ca: str | None, fault: CertificateFault) -> None:
    with server(secured(made)) as port, pytest.raises(TlsFailed) as failed:
        dial(tls_endpoint(port, ca=ca), Budget(20))

    assert failed.value.certificate is fault
    assert failed.value.step is Step.TLS
    assert f"localhost:{port}" in str(failed.value)
    assert str(failed.value).endswith(failed.value.remedy)


def test_a_wrong_address_in_the_certificate_is_told() -> None:
    with server(secured(context("127.0.0.2"))) as port, pytest.raises(TlsFailed) as failed:
        dial(tls_endpoint(port, "127.0.0.1"), Budget(20))

    assert failed.value.certificate is CertificateFault.HOST_NAME


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1:DeprecationWarning")
def test_old_tls_is_refused() -> None:
    made = context("localhost", version=ssl.TLSVersion.TLSv1_1)
    with server(secured(made)) as port, pytest.raises(TlsFailed) as failed:
        dial(tls_endpoint(port), Budget(20))

    assert failed.value.certificate is None


def test_tls_against_a_plain_port_is_told() -> None:
    def greet(sock: socket.socket) -> None:
        sock.sendall(b"220 mail.example ESMTP\r\n")
        until_closed(sock)

    with server(greet) as port, pytest.raises(TlsFailed, match="answers without TLS") as failed:
        dial(tls_endpoint(port), Budget(20))

    assert failed.value.plaintext
    assert failed.value.remedy == "Choose STARTTLS or none, or give its TLS port."


def test_a_silent_handshake_uses_up_the_budget() -> None:
    budget = Budget(1)
    with server(until_closed) as port, pytest.raises(TimedOut) as failed:
        dial(tls_endpoint(port), budget)

    assert failed.value.step is Step.TLS
    assert 1 <= budget.waited < 2


def test_a_server_that_hangs_up_in_the_handshake() -> None:
    with server(lambda sock: None) as port, pytest.raises(Disconnected) as failed:
        dial(tls_endpoint(port), Budget(20))

    assert failed.value.step is Step.TLS


def test_an_authority_that_is_no_pem_is_told() -> None:
    with server(until_closed) as port, pytest.raises(TlsFailed, match="not a certificate in PEM"):
        dial(tls_endpoint(port, ca="no pem"), Budget(20))


def test_one_context_for_one_set_of_authorities() -> None:
    assert tls_context(CA) is tls_context(CA)
    assert tls_context(CA) is not tls_context(None)
    assert tls_context(CA).minimum_version is ssl.TLSVersion.TLSv1_2
    assert tls_context(CA).check_hostname
    assert tls_context(CA).verify_mode is ssl.CERT_REQUIRED


def test_a_refused_connection_is_told() -> None:
    port = free_port()
    with pytest.raises(ConnectFailed, match=f"127.0.0.1:{port} refused") as failed:
        dial(Endpoint("127.0.0.1", port, Security.NONE), Budget(20))

    assert failed.value.step is Step.CONNECT


@pytest.mark.parametrize("host", ["nosuch.invalid", "a" * 70 + ".example", "fe80::1%nosuch", "x..y"])
def test_an_unknown_host_is_told(host: str) -> None:
    with pytest.raises(ResolveFailed) as failed:
        dial(Endpoint(host, 25, Security.NONE), Budget(20))

    assert failed.value.step is Step.RESOLVE
    assert host in str(failed.value)


def test_a_name_server_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    never = threading.Event()

    def hang(*_: object, **__: object) -> list[object]:
        never.wait(20)
        raise socket.gaierror(socket.EAI_AGAIN, "late")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    monkeypatch.setattr(sys.modules[dial.__module__], "LOOKUP", 0.5)
    budget = Budget(20)
    begun = time.monotonic()
    with pytest.raises(ResolveFailed, match="in time"):
        dial(Endpoint("slow.example", 25, Security.NONE), budget)
    never.set()

    assert 0.5 <= time.monotonic() - begun < 10
    assert budget.waited == 0  # no server kept us waiting


def test_a_slow_name_server_leaves_the_server_its_whole_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    found = socket.getaddrinfo

    def late(_host: bytes, *more: Any, **named: Any) -> list[Any]:
        time.sleep(0.5)
        return found("127.0.0.1", *more, **named)

    monkeypatch.setattr(socket, "getaddrinfo", late)
    budget = Budget(0.4)
    with server(until_closed) as port:
        dial(Endpoint("slow.example", port, Security.NONE), budget).close()

    assert budget.waited < 0.4


def test_the_next_address_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    with server(until_closed) as port:
        answers = [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.9", free_port())),
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)),
        ]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answers)
        dial(Endpoint("two.example", port, Security.NONE), Budget(20)).close()


def test_literals_are_resolved_without_a_name_server() -> None:
    assert resolve("127.0.0.1", 25, 0.0)[0].sockaddr == ("127.0.0.1", 25)
    assert resolve("::1", 25, 0.0)[0].sockaddr[:2] == ("::1", 25)


def test_plaintext_before_the_handshake_is_dropped_with_an_error() -> None:
    def inject(sock: socket.socket) -> None:
        sock.sendall(b"go ahead\r\nevil\r\n")
        until_closed(sock)

    with server(inject) as port:
        endpoint = Endpoint("localhost", port, Security.STARTTLS, CA)
        budget = Budget(20)
        sock = dial(endpoint, budget)
        assert isinstance(sock, PatientSocket)
        line = b""
        while not line.endswith(b"\n"):
            line += sock.recv(1)
        with pytest.raises(Injected):
            start_tls(sock, endpoint, budget)
        assert sock.fileno() == -1


@pytest.mark.parametrize("security", [Security.NONE, Security.TLS])
def test_a_stalled_write_uses_up_the_budget(security: Security) -> None:
    made = context("localhost")
    held = threading.Event()

    def stop_reading(sock: socket.socket) -> None:
        with made.wrap_socket(sock, server_side=True) if security is Security.TLS else sock:
            held.wait(20)

    budget = Budget(1)
    with server(stop_reading, SO_RCVBUF=4096) as port:
        sock = dial(Endpoint("localhost", port, security, CA), budget)
        with pytest.raises(TimedOut):
            sock.sendall(b"x" * 50_000_000)
        sock.close()
        held.set()

    assert 1 <= budget.waited < 2


@pytest.mark.parametrize("security", [Security.NONE, Security.TLS])
def test_flowing_bytes_do_not_use_up_the_budget(security: Security) -> None:
    """Each look finds the queue shorter, for longer than the budget would let us wait."""
    made = context("localhost")
    size = 30_000_000
    rest = threading.Event()

    def read_slowly(sock: socket.socket) -> None:
        with made.wrap_socket(sock, server_side=True) if security is Security.TLS else sock as reading:
            taken = 0
            while taken < size:
                part = reading.recv(262_144)
                if not part:
                    return
                taken += len(part)
                rest.wait(len(part) / 15_000_000)
            reading.sendall(b"done")

    budget = Budget(1)
    with server(read_slowly, SO_RCVBUF=65_536) as port:
        sock = dial(Endpoint("localhost", port, security, CA), budget)
        sock.sendall(b"x" * size)
        assert sock.recv(10) == b"done"
        sock.close()

    assert budget.waited < 1


@pytest.mark.parametrize("security", [Security.NONE, Security.TLS])
def test_a_dripping_server_does_not_stretch_the_budget(security: Security) -> None:
    made = context("localhost")
    over = threading.Event()

    def drip(sock: socket.socket) -> None:
        with made.wrap_socket(sock, server_side=True) if security is Security.TLS else sock as dripping:
            while not over.wait(0.05):
                dripping.sendall(b"x")

    budget = Budget(1)
    with server(drip) as port:
        sock = dial(Endpoint("localhost", port, security, CA), budget)
        with pytest.raises(TimedOut), sock.makefile("rb") as lines:  # as smtplib and imaplib read
            lines.readline()
        sock.close()
        over.set()

    assert 1 <= budget.waited < 2


def test_every_error_names_place_and_remedy() -> None:
    with pytest.raises(NetError) as failed:
        dial(Endpoint("127.0.0.1", free_port(), Security.TLS), Budget(20))

    assert str(failed.value.endpoint) in failed.value.what
    assert failed.value.remedy.endswith(".")
