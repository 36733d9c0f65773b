"""`FaultyImap` that idles, says what it is told to say, and may fall silent."""

import socket
import ssl
from contextlib import suppress

from lab.servers.imap_faults import FaultyImap, _Dialogue, _Gone


class IdlingImap(FaultyImap):
    """Offers IDLE unless ``idles`` is False. ``deaf``: DONE and NOOP get no answer any more."""

    def __init__(self, *args: object, idles: bool = True, **named: object) -> None:
        super().__init__(*args, **named)  # type: ignore[arg-type]
        self.idles = idles
        self.deaf = False
        self.idling: set[socket.socket] = set()

    def say(self, data: bytes) -> None:
        """To every session that is in IDLE."""
        with self._lock:
            for sock in self.idling:
                sock.sendall(data)

    def _serve(self, sock: socket.socket) -> None:
        with self._lock:
            self._sockets.add(sock)
            self.sessions += 1
            self.open_sessions += 1
        dialogue = _IdlingDialogue(self, sock)
        try:
            dialogue.run()
        except (_Gone, OSError, ssl.SSLError, ValueError):
            pass
        finally:
            with self._lock:
                self._sockets.discard(sock)
                self.idling.discard(sock)
                self.open_sessions -= 1
            with suppress(OSError):
                dialogue.sock.close()


class _IdlingDialogue(_Dialogue):
    server: IdlingImap

    def _capabilities(self) -> bytes:
        return super()._capabilities() + (b" IDLE" if self.server.idles else b"")

    def _answer(self, tag: bytes, name: str, rest: bytes) -> None:
        if name != "IDLE":
            if self.server.deaf and name == "NOOP":
                self.server.ended.wait()
                raise _Gone
            super()._answer(tag, name, rest)
            return
        self._send(b"+ idling\r\n")
        with self.server._lock:
            self.server.idling.add(self.sock)
        line = self._line()
        with self.server._lock:
            self.server.idling.discard(self.sock)
        self.server.commands[line.decode("ascii", "replace")] += 1
        if self.server.deaf:
            self.server.ended.wait()
            raise _Gone
        self._send(tag + b" OK Idle completed\r\n")
