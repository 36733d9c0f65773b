"""Hearing of news at once: sessions that wait in IDLE, thousands to a process, shared between processes."""

from tasks.watch.engine import Ring, Watcher

__all__ = ["Ring", "Watcher"]
