"""Metadata of sandboxes: what is a valid label, on a create and in a patch (docs/wire/api.md section 7)."""

from __future__ import annotations

import re

from shoal.errors import InvalidRequest
from shoal.models import codes
from shoal.models.opensandbox import RESERVED_PREFIX
from shoal.models.requests import MetadataPatch

_LABEL_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
_DNS_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")


def check_metadata_patch(patch: MetadataPatch) -> None:
    """Raise InvalidRequest for a reserved key, even one to delete, then for an addition that is no label."""
    for key in patch:
        if key.startswith(RESERVED_PREFIX):
            raise InvalidRequest(codes.RESERVED_METADATA_LABEL, f"metadata: keys below {RESERVED_PREFIX} are reserved.")
    for key, value in patch.items():
        if value is not None:
            check_label(key, value)


def check_label(key: str, value: str) -> None:
    """Raise InvalidRequest unless the key is ``[prefix/]name`` and the value short and of the same letters."""
    if key.startswith(RESERVED_PREFIX):
        raise InvalidRequest(codes.INVALID_METADATA_LABEL, f"metadata: keys below {RESERVED_PREFIX} are reserved.")
    prefix, slash, name = key.rpartition("/")
    if len(name) > 63 or _LABEL_NAME.fullmatch(name) is None:
        rule = "a name is 1 to 63 letters, digits, '-', '_' and '.', a letter or digit at both ends"
        raise InvalidRequest(codes.INVALID_METADATA_LABEL, f"metadata: the key {shown(key)} is invalid: {rule}.")
    if slash and (len(prefix) > 253 or _DNS_SUBDOMAIN.fullmatch(prefix) is None):
        rule = "a prefix is a lower-case DNS subdomain of at most 253 characters"
        raise InvalidRequest(codes.INVALID_METADATA_LABEL, f"metadata: the key {shown(key)} is invalid: {rule}.")
    if value and (len(value) > 63 or _LABEL_NAME.fullmatch(value) is None):
        rule = "at most 63 letters, digits, '-', '_' and '.', a letter or digit at both ends"
        raise InvalidRequest(codes.INVALID_METADATA_LABEL, f"metadata: the value of {shown(key)} is invalid: {rule}.")


def shown(text: str) -> str:
    """A caller's key for a message, of at most 64 characters."""
    return repr(text if len(text) <= 64 else text[:61] + "...")
