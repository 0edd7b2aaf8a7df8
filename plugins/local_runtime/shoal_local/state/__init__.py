"""What is kept on disk, and what is read from it.

::

    directory.py   the state directory of one server
    box.py         the directory of one sandbox
    records.py     records as JSON
    observe.py     from that directory to a workload
    logs.py        captured output
    trees.py       removing whole trees
"""
