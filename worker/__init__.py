"""What runs: the Celery app, beat, relay, watcher, the command line and the embedded stack."""
