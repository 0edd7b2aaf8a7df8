"""Which languages there are in this sandbox, and an interpreter for each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoal_agent.agent import RunningAgent
from shoal_agent.code.driven import JavaScript, Python
from shoal_agent.code.interpreter import Interpreter, InterpreterUnavailable
from shoal_agent.code.shell import Shell
from shoal_agent.commands.spec import program
from shoal_agent.http.errors import INVALID_REQUEST_BODY, NOT_SUPPORTED, RUNTIME_ERROR, ApiError

if TYPE_CHECKING:
    from shoal_agent.code.jupyter.server import JupyterServer

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

    def __init__(self, agent: RunningAgent) -> None:
        self._agent = agent

    async def make(self, language: str, directory: str | None) -> Interpreter:
        """An interpreter that has started, in `directory` or where the agent is.

        Raises `ApiError`: 400 for a language that nothing here speaks, 501 for one whose program the image lacks.
        """
        server = self._server()
        try:
            kernels = await server.languages() if server is not None else {}
            if server is not None and language in kernels:
                made = server.kernel(language, kernels[language], directory)
            else:
                made = self._own(language, directory, kernels)
            await made.prepare()
        except InterpreterUnavailable as error:
            raise ApiError(500, RUNTIME_ERROR, str(error)) from None
        return made

    def _server(self) -> JupyterServer | None:
        url = self._agent.options.jupyter_host
        if not url:
            return None
        from shoal_agent.code.jupyter.server import JupyterServer  # few sandboxes have one

        try:
            return JupyterServer.at(url, self._agent.options.jupyter_token)
        except ValueError as error:
            raise ApiError(500, RUNTIME_ERROR, str(error)) from None

    def _own(self, language: str, directory: str | None, kernels: dict[str, str]) -> Interpreter:
        environment = self._agent.environment.for_sessions()
        if language not in PROGRAMS:
            raise ApiError(400, INVALID_REQUEST_BODY, f"unknown language {language!r}: {_offer(environment, kernels)}")
        kind, names = PROGRAMS[language]
        found = _find(names, environment)
        if found is None:
            missing = f"{language} needs {' or '.join(names)} on the PATH of this sandbox"
            raise ApiError(501, NOT_SUPPORTED, f"{missing}: {_offer(environment, kernels)}")
        return kind(self._agent.children, found, environment, directory)


def _find(names: tuple[str, ...], environment: dict[str, str]) -> str | None:
    return next((found for name in names if (found := program(name, environment, "/"))), None)


def _offer(environment: dict[str, str], kernels: dict[str, str]) -> str:
    """What there is, in words."""
    own = {language for language, (_, names) in PROGRAMS.items() if _find(names, environment)}
    there = sorted(own | set(kernels))
    return f"there is {', '.join(there)}" if there else "there is none for code"
