"""Images: names, archives, and root file systems unpacked from them.

::

    catalog.py   image names, and what they stand for
    oci.py       OCI layouts and Docker archives
    unpack.py    layers onto the disk
    bounds.py    how much one image may take
    cache.py     unpacked roots, shared by all sandboxes
"""
