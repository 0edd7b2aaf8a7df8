"""The default store: one SQLite file, one writer thread, many callers committed together.

::

    sqlite          the `Store` itself
    writer          the thread, and its group commit
    database        opens, locks and closes the file
    space           keeps room for endings on a full disk
    schema          the tables, and their migrations
    snapshot_rows   the one table that is shared with other servers
    salvage         what can be read of a damaged row
    failures        what SQLite's errors mean to a caller
    hooks           what the kernel calls
"""
