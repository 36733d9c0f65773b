"""The watcher's process: the engine of `tasks.watch` with the broker for a bell."""

import time

from kombu.exceptions import OperationalError

from config.errors import TransientError
from config.queues import Lane
from config.settings import Settings
from tasks.runtime import Runtime
from tasks.sync.tasks import ring
from tasks.watch import Ring, Watcher
from worker.app import make_app

REST = 5.0
"""Seconds for which a broker that did not answer is let alone; beat's ticks find what is due."""
ANSWER = 2.0
"""Seconds that the broker may take."""


class BrokerDown(TransientError):
    """The broker takes no message now."""

    code = "broker_down"


def make_watcher(runtime: Runtime) -> Watcher:
    """A watcher that rings the workers through the broker. Raises `UserError` where no broker is set."""
    return Watcher(runtime, make_ring(runtime.settings))


def make_ring(settings: Settings, rest: float = REST) -> Ring:
    """What says to the workers that mailboxes are due. It raises `BrokerDown` where it cannot, and is
    silent for ``rest`` seconds then."""
    app = make_app(settings)
    app.conf.broker_transport_options |= {"socket_timeout": ANSWER, "socket_connect_timeout": ANSWER}
    app.conf.task_publish_retry = False
    resting = 0.0

    def tell() -> None:
        nonlocal resting
        if time.monotonic() < resting:
            return
        try:
            ring(Lane.SYNC)
        except (OperationalError, OSError) as error:
            resting = time.monotonic() + rest
            raise BrokerDown(f"the broker does not answer ({type(error).__name__}).") from error

    return tell
