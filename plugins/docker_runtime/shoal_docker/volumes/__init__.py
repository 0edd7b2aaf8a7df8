"""Volumes of sandboxes: directories of the host, named volumes, buckets (docs/wire/docker.md section 9)."""

from shoal_docker.volumes.mounting import Prepared, Swapped, Unseen, Volumes

__all__ = ["Prepared", "Swapped", "Unseen", "Volumes"]
