"""Which network sandboxes get."""

from __future__ import annotations

import shutil
from typing import Final, Literal

from msgspec import Struct

from shoal.errors import ConfigError
from shoal_local.config import LocalSettings
from shoal_local.network.client import Broker

Mode = Literal["internet", "none"]
TOOL: Final = "pasta"
SEARCH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
WORDS: Final = {
    "host": "host (127.0.0.1; ports are this machine's own)",
    "internet": "own, with a way to the internet",
    "none": "own, with no way out",
}
INSTALL: Final = "install pasta (for example: apt-get install passt)"


class Network(Struct, frozen=True):
    """A network namespace for each sandbox.

    Attributes:
        mode: what is outside of it.
        broker: the way into it.
        pasta: the program that connects it, for ``internet``.
        allowed: networks that are open though private.
    """

    mode: Mode
    broker: Broker
    pasta: str | None = None
    allowed: tuple[str, ...] = ()


def choose(local: LocalSettings, broker: Broker) -> Network | None:
    """What ``local.network`` comes to here; None = sandboxes share the machine's. Raises ConfigError."""
    if local.network == "host" or (local.network == "auto" and local.isolation == "none"):
        return None
    if local.isolation == "none":
        raise ConfigError(f'local.network: "{local.network}" needs isolation; with isolation = "none" it is "host"')
    pasta = shutil.which(TOOL, path=SEARCH)
    if local.network == "none" or (local.network == "auto" and pasta is None):
        return Network("none", broker)
    if pasta is None:
        raise ConfigError(f'local.network: "internet" needs the program {TOOL}: {INSTALL}')
    return Network("internet", broker, pasta, tuple(local.network_allow))


def without(network: Network) -> Network:
    """The same without a way out."""
    return Network("none", network.broker)


def hint(local: LocalSettings) -> str | None:
    """What the administrator may want to know: why sandboxes have no way out although nobody closed it."""
    if local.network != "auto" or local.isolation == "none" or shutil.which(TOOL, path=SEARCH) is not None:
        return None
    return f'sandboxes cannot reach the internet: {INSTALL}, or choose [local] network = "none" or "host"'
