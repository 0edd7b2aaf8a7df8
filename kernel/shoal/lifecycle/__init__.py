"""The lifecycle: what happens to a sandbox, in which order, and how it survives the process.

``facade`` wires it, starts and stops it. The web layer takes ``sandboxes``, ``snapshots``, ``pools``, ``diagnostics``
and ``reach``, the proxy the last. Behind them: ``core`` is what all of them work with; ``ledger`` makes a change
durable, then visible, then notifies observers; ``lanes`` runs the operations on one sandbox one after another;
``states`` is the state machine; ``provision`` makes plans real; ``removal`` undoes them; ``expiry`` ends what has run
out; ``reconcile`` compares what is recorded with what runs.
"""
