"""Images: there when a sandbox needs them, and only for who may have them.

============  ======================================================================
``names``     what a reference means
``ensure``    the way from a reference to an image that a container can be made of
``presence``  which images the engine has, kept true by its events
``access``    who may have an image that is already there
``pulls``     pulls, one for many waiters, and how far they are (``progress``)
============  ======================================================================
"""

from shoal_docker.images.ensure import Images
from shoal_docker.images.presence import EngineImage

__all__ = ["EngineImage", "Images"]
