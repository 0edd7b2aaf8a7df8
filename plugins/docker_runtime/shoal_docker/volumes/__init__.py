"""Volumes of sandboxes: directories of the host, named volumes, buckets (docs/wire/docker.md section 9)."""

from shoal_docker.volumes.mounting import Prepared, Volumes

__all__ = ["Prepared", "Volumes"]
