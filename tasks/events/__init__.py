"""The event record: written with the fact, positioned by the relay, fed to the sinks."""

from tasks.events.record import RECORD, NewEvent, record

__all__ = ["RECORD", "NewEvent", "record"]
