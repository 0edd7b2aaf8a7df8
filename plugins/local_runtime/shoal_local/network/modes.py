"""Which network sandboxes get."""

from __future__ import annotations

from typing import Final, Literal

from msgspec import Struct

from shoal.errors import ConfigError
from shoal_local.config import LocalSettings
from shoal_local.network.client import Broker

Mode = Literal["none"]
WORDS: Final = {"host": "host (127.0.0.1; ports are this machine's own)", "none": "own, with no way out"}


class Network(Struct, frozen=True):
    """A network namespace for each sandbox.

    Attributes:
        mode: what is outside of it.
        broker: the way into it.
    """

    mode: Mode
    broker: Broker


def choose(local: LocalSettings, broker: Broker) -> Network | None:
    """What ``local.network`` comes to here; None = sandboxes share the machine's. Raises ConfigError."""
    if local.network == "host" or (local.network == "auto" and local.isolation == "none"):
        return None
    if local.isolation == "none":
        raise ConfigError(f'local.network: "{local.network}" needs isolation; with isolation = "none" it is "host"')
    return Network("none", broker)


def hint(local: LocalSettings) -> str | None:
    """What the administrator may want to know: that sandboxes have no way out although nobody closed it."""
    if local.network != "auto" or local.isolation == "none":
        return None
    return 'sandboxes have no way out of this machine; [local] network = "host" lets them share its network'
