"""Hearing of news at once: sessions that wait in IDLE, thousands to a process, shared between processes."""

from tasks.watch.engine import Ring, Watcher
from tasks.watch.loop import News

__all__ = ["News", "Ring", "Watcher"]
