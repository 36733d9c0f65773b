"""Bytes too many to hold: they lie in a file without a name, and are looked at through windows.

The file is in the directory for temporary files (``TMPDIR``) and goes with its last reader, or its process.
"""

import hashlib
import mmap
import tempfile
from collections.abc import Iterator
from typing import Final, SupportsIndex, overload

LARGE: Final = 1 << 20
"""Bytes from which on a message lies in a file."""
WINDOW: Final = 1 << 18
"""Bytes looked at in one go."""
RESIDENT: Final = 1 << 20
"""Bytes looked at before the system may have their pages back."""


class Bulk(mmap.mmap):
    """As bytes, for `re` too, but little of it is in memory. Slices are bytes, so ask for small ones."""

    _seen: int

    def __new__(cls, file: int, size: int) -> "Bulk":
        """Over an open file of ``size`` bytes, which may be closed then."""
        bulk = super().__new__(cls, file, size, access=mmap.ACCESS_READ)
        bulk._seen = 0
        return bulk

    @overload
    def __getitem__(self, key: SupportsIndex) -> int: ...
    @overload
    def __getitem__(self, key: slice) -> bytes: ...
    def __getitem__(self, key: SupportsIndex | slice) -> int | bytes:
        """One byte, or several."""
        found = super().__getitem__(key)
        if isinstance(found, bytes):
            self._saw(len(found))
        return found

    def find(self, sub: bytes, start: int = 0, end: int | None = None) -> int:  # type: ignore[override]
        """As of bytes, of places that are not negative."""
        end = len(self) if end is None else min(end, len(self))
        while start + len(sub) <= end:
            stop = min(end, start + WINDOW + len(sub) - 1)
            at = super().find(sub, start, stop)
            self._saw((stop if at < 0 else at) - start)
            if at >= 0:
                return at
            start += WINDOW
        return -1

    def startswith(self, prefix: bytes, start: int, end: int) -> bool:
        """As of bytes."""
        return start + len(prefix) <= end and self[start : start + len(prefix)] == prefix

    def _saw(self, count: int) -> None:
        self._seen += count
        if self._seen > RESIDENT:
            self.madvise(mmap.MADV_DONTNEED)
            self._seen = 0


Raw = bytes | Bulk
"""A message as it came."""


class Spool:
    """A file being written. Every method raises `OSError` where there is no room."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - `finish` closes it
        self._size = 0

    def write(self, data: memoryview) -> None:
        """Append."""
        while data:
            written = self._file.write(data)
            data = data[written:]
            self._size += written

    def finish(self) -> Bulk:
        """What was written, at least one byte."""
        with self._file:
            return Bulk(self._file.fileno(), self._size)


def windows(raw: Raw, start: int = 0, end: int | None = None) -> Iterator[bytes]:
    """``raw[start:end]`` in pieces of at most `WINDOW` bytes."""
    end = len(raw) if end is None else end
    for at in range(start, end, WINDOW):
        yield raw[at : min(end, at + WINDOW)]


def sha256(raw: Raw) -> bytes:
    """The digest of ``raw``."""
    if isinstance(raw, bytes):
        return hashlib.sha256(raw).digest()
    digest = hashlib.sha256()
    for window in windows(raw):
        digest.update(window)
    return digest.digest()
