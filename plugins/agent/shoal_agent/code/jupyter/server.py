"""A Jupyter server: which languages its kernels speak."""

from __future__ import annotations

import asyncio
from typing import Any

from shoal_agent.code.interpreter import Interpreter, InterpreterUnavailable
from shoal_agent.code.jupyter.http import Address, JupyterError, request
from shoal_agent.code.jupyter.kernel import Kernel

START_TIMEOUT = 25.0
"""Seconds that a server which does not listen yet is waited for: SDKs wait 30 s, and shall see the answer."""
POLL_INTERVAL = 0.2


class JupyterServer:
    """Where `JUPYTER_HOST` points."""

    def __init__(self, address: Address) -> None:
        self._address = address

    @classmethod
    def at(cls, url: str, token: str | None) -> JupyterServer:
        """Raises ValueError for a URL that is neither http nor https."""
        return cls(Address(url, token))

    def kernel(self, language: str, name: str, directory: str | None) -> Interpreter:
        """A new kernel, by the name that `languages` tells."""
        return Kernel(self._address, language, name, directory)

    async def languages(self) -> dict[str, str]:
        """Kernels by language in lower case. Waits while the server starts. Raises InterpreterUnavailable."""
        answer = await self._patiently("/api/kernelspecs")
        found: dict[str, str] = {}
        for name, entry in sorted(((answer or {}).get("kernelspecs") or {}).items(), key=_python3_last):
            language = str(((entry or {}).get("spec") or {}).get("language") or name).lower()
            found.setdefault(language, name)
        return found

    async def _patiently(self, path: str) -> Any:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + START_TIMEOUT
        while True:
            try:
                return await request(self._address, "GET", path)
            except JupyterError as error:
                if error.status or loop.time() > deadline:
                    raise InterpreterUnavailable(str(error)) from None
            await asyncio.sleep(POLL_INTERVAL)


def _python3_last(item: tuple[str, Any]) -> tuple[bool, str]:
    """Among several kernels of a language the image's own comes before the one that ipykernel brings by itself."""
    return item[0] == "python3", item[0]
