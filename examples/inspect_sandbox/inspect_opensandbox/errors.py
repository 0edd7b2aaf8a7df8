"""Failures of the server as the exceptions that Inspect expects."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus

from opensandbox import Sandbox
from opensandbox.exceptions import SandboxApiException


@asynccontextmanager
async def file_errors(sandbox: Sandbox, path: str) -> AsyncIterator[None]:
    """Raises FileNotFoundError, PermissionError or IsADirectoryError with the path, where the server refuses it."""
    try:
        yield
    except SandboxApiException as error:
        if error.status_code == HTTPStatus.NOT_FOUND:
            raise FileNotFoundError(f"no such file: {path}") from error
        if error.status_code == HTTPStatus.FORBIDDEN:
            raise PermissionError(f"permission denied: {path}") from error
        if await _is_directory(sandbox, path):
            raise IsADirectoryError(f"is a directory: {path}") from error
        raise


async def _is_directory(sandbox: Sandbox, path: str) -> bool:
    try:
        found = await sandbox.files.get_file_info([path])
    except SandboxApiException:
        return False
    return any(entry.entry_type == "directory" for entry in found.values())
