"""The agent in a sandbox: started with the first need of it.

::

    placement.py  where its files lie in a sandbox
    starter.py    starting it, in the sandbox's namespaces
    spawner.py    asking the parent that agents are forked from
    parent.py     that parent, a program
"""
