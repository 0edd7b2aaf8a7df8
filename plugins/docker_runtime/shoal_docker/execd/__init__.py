"""execd in a sandbox: ``distribution`` finds or fills a volume, ``volumes`` are those, ``files`` what is in them."""

from shoal_docker.execd.distribution import Execd
from shoal_docker.execd.files import LINUX, WINDOWS
from shoal_docker.execd.volumes import VOLUME, VOLUME_PREFIX, ExecdVolumes, Installed, installed

__all__ = ["LINUX", "VOLUME", "VOLUME_PREFIX", "WINDOWS", "Execd", "ExecdVolumes", "Installed", "installed"]
