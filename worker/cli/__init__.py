"""The command line ``mailwright``: one module a noun, loaded when it is called."""

from worker.cli.main import main

__all__ = ["main"]
