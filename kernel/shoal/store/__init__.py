"""The embedded store: one SQLite file, one writer thread, many callers committed together.

``sqlite`` is the `Store` itself; ``writer`` the thread and its group commit; ``database`` opens, locks and closes the
file; ``space`` keeps room for endings on a full disk; ``schema`` its tables and migrations; ``snapshot_rows`` the one
table that is shared with other servers; ``failures`` what SQLite's errors mean to a caller.
"""
