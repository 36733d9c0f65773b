"""Changes that flow back: wished for here, carried out under the mailbox's lease.

::

    wishes ──INSERT──> queued ──run──> done             the server said OK and shows it
                         │  ^   ├────> told ──> done    it said OK; what it shows is waited for
                         │  │   ├────> void             nothing left to change
                         └──┘   └────> failed           refused, or tried too often: ``command.failed``
                      back-off

Until a command ends, what is read is overlaid with it (`overlay`); what the sync then finds is known as
ours (`origins`).
"""
