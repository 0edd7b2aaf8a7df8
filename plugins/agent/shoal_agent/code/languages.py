"""Which languages there are in this sandbox, and an interpreter for each."""

from __future__ import annotations

import shutil

from shoal_agent.agent import Agent
from shoal_agent.code.driven import JavaScript, Python
from shoal_agent.code.interpreter import Interpreter, Unavailable
from shoal_agent.code.jupyter.http import Address, JupyterError
from shoal_agent.code.jupyter.kernel import Kernel
from shoal_agent.code.jupyter.server import Server
from shoal_agent.code.shell import Shell
from shoal_agent.http.errors import INVALID_REQUEST_BODY, NOT_SUPPORTED, RUNTIME_ERROR, ApiError

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PROGRAMS: dict[str, tuple[type[Python] | type[JavaScript] | type[Shell], tuple[str, ...]]] = {
    "python": (Python, ("python3", "python")),
    "bash": (Shell, ("bash", "sh")),
    "javascript": (JavaScript, ("node", "nodejs")),
}
"""Our own interpreters and the programs that they need, the better one first."""
ALIASES = {"python3": "python", "sh": "bash", "shell": "bash", "js": "javascript", "node": "javascript"}


def named(language: str) -> str:
    """The language's own name for what a client wrote."""
    name = language.strip().lower()
    return ALIASES.get(name, name)


class Languages:
    """Makes interpreters: those of a Jupyter server where one is named, else those of the image."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    async def make(self, language: str, directory: str | None) -> Interpreter:
        """An interpreter that has started, in `directory` or where the agent is.

        Raises `ApiError`: 400 for a language that nothing here speaks, 501 for one whose program the image lacks.
        """
        server = self._server()
        try:
            kernels = await server.languages() if server is not None else {}
            if server is not None and language in kernels:
                made: Interpreter = Kernel(server, language, kernels[language], directory)
            else:
                made = self._own(language, directory, kernels)
            await made.prepare()
        except (JupyterError, Unavailable) as error:
            raise ApiError(500, RUNTIME_ERROR, str(error)) from None
        return made

    def _server(self) -> Server | None:
        url = self._agent.options.jupyter_host
        if not url:
            return None
        try:
            return Server(Address(url, self._agent.options.jupyter_token))
        except ValueError as error:
            raise ApiError(500, RUNTIME_ERROR, str(error)) from None

    def _own(self, language: str, directory: str | None, kernels: dict[str, str]) -> Interpreter:
        environment = self._agent.environment.for_sessions()
        path = environment.get("PATH") or DEFAULT_PATH
        if language not in PROGRAMS:
            raise ApiError(400, INVALID_REQUEST_BODY, f"unknown language {language!r}: {_offer(path, kernels)}")
        kind, names = PROGRAMS[language]
        program = _find(names, path)
        if program is None:
            missing = f"{language} needs {' or '.join(names)} on the PATH of this sandbox: {_offer(path, kernels)}"
            raise ApiError(501, NOT_SUPPORTED, missing)
        return kind(self._agent.children, program, environment, directory)


def _find(names: tuple[str, ...], path: str) -> str | None:
    entries = ":".join(entry for entry in path.split(":") if entry.startswith("/"))
    return next((found for name in names if (found := shutil.which(name, path=entries))), None)


def _offer(path: str, kernels: dict[str, str]) -> str:
    """What there is, in words."""
    own = {language for language, (_, names) in PROGRAMS.items() if _find(names, path)}
    there = sorted(own | set(kernels))
    return f"there is {', '.join(there)}" if there else "there is none for code"
