"""What runtimes and other plugins would otherwise each write anew. Public: part of the plugin contract.

::

    quantities   Kubernetes quantities (``500m``, ``512Mi``), read and bounded
    feed         changes of workloads handed to every watcher of a runtime
    threads      blocking calls on a bounded number of threads
    backoff      growing waits between the tries of what keeps failing
    due          one timer for many deadlines
    masking      secrets kept out of text that people read
    writable     whether a file could be written, without writing
    walk         a path walked without following a symbolic link, for runtimes that mount what callers name
"""

from shoal.kit.backoff import Backoff
from shoal.kit.due import DueClock
from shoal.kit.feed import Feed
from shoal.kit.masking import MASK, mask, mask_all, secret_values
from shoal.kit.quantities import QuantityError, parse_bytes, parse_cores, parse_quantity
from shoal.kit.threads import BoundedThreads
from shoal.kit.writable import hindrance

__all__ = [
    "MASK",
    "Backoff",
    "BoundedThreads",
    "DueClock",
    "Feed",
    "QuantityError",
    "hindrance",
    "mask",
    "mask_all",
    "parse_bytes",
    "parse_cores",
    "parse_quantity",
    "secret_values",
]
