"""execd in a sandbox: taken out of an image (``distribution``) or provided by a plugin (``provided``).

``filling`` finds or fills a volume, ``volumes`` are those, ``files`` what is in them.
"""

from shoal_docker.execd.distribution import Execd
from shoal_docker.execd.files import LINUX, WINDOWS
from shoal_docker.execd.provided import ProvidedExecd
from shoal_docker.execd.volumes import VOLUME, VOLUME_PREFIX, ExecdVolumes, Installed, installed

__all__ = [
    "LINUX",
    "VOLUME",
    "VOLUME_PREFIX",
    "WINDOWS",
    "Execd",
    "ExecdVolumes",
    "Installed",
    "ProvidedExecd",
    "installed",
]
