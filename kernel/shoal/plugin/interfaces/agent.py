"""Agents: the program that a runtime puts into sandboxes, so that clients run commands and move files in them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Final

from msgspec import Struct

from shoal.models.opensandbox import AGENT_PORT as AGENT_PORT
from shoal.models.opensandbox import AGENT_TOKEN_HEADER as AGENT_TOKEN_HEADER
from shoal.plugin.interfaces.component import Component

AGENT_TOKEN_LABEL: Final = "opensandbox.io/agent-token"  # noqa: S105 - a label's name
"""In `WorkloadPlan.labels` and `Workload.labels`: the access token of the sandbox's agent."""


class AgentFiles(Struct, frozen=True):
    """The files of an agent for one platform.

    Attributes:
        folder: on this machine; what is in it goes into ``/opt/opensandbox`` of a sandbox. It holds the executables
            ``execd``, the agent, and ``bootstrap.sh``, which starts it beside a command (docs/wire/execd.md section
            13). It is self-contained, and nothing in it changes while the server runs.
        digest: of everything in the folder; the same files have the same digest on every machine.
    """

    folder: Path
    digest: str


class ForkedAgent(Struct, frozen=True):
    """How a process that has imported an agent written in Python becomes that agent.

    Attributes:
        interpreter: the command of a Python that finds ``module``; the path of a script and its arguments follow.
        module: it has ``prepare()``, which imports what the agent needs, opens nothing and starts no thread, and
            ``serve(environment, folder, listening)``, which is the agent and returns its exit status. These are the
            agent's variables, where its files lie in the sandbox, and a function that it calls once it listens;
            whatever it raises before that is told to the caller of the port.
    """

    interpreter: tuple[str, ...]
    module: str


class Agent(Component, ABC):
    """One agent. ``runtime.execd_image`` says its name; any other text there is the image of one.

    Attributes:
        takes_token: it can be made to refuse requests without a token (`environment`); the kernel then makes one for
            each sandbox.
        keeps_connections: it closes no connection because it was idle, old or much used, and writes nothing behind an
            answer's end. With ``takes_token``, by which its sandboxes are known, the proxy then keeps connections to it
            also for requests that must not be sent twice, and after event streams.
    """

    takes_token: bool = False
    keeps_connections: bool = False

    @abstractmethod
    async def files(self, platform: str) -> AgentFiles | None:
        """The files for a platform, ``linux/amd64``; None if there are none.

        May take as long as making them takes; asked again for every sandbox, so what is there is returned at once.
        Raises EngineFailure.
        """

    @abstractmethod
    def command(self, folder: str) -> list[str]:
        """What starts the agent where its files lie in ``folder``, in place of ``/opt/opensandbox``."""

    def forked(self, folder: Path) -> ForkedAgent | None:
        """How a runtime on this machine forks it, where its files lie in ``folder`` here; None = it is executed."""
        return None

    def environment(self, token: str) -> dict[str, str]:
        """Variables for the agent's process, by which it knows the token. Whoever reads them must not learn it."""
        return {}

    def listening(self, port: int) -> dict[str, str] | None:
        """Variables that make it listen on ``port`` and not on 44772; None = it always listens on 44772.

        For sandboxes that share one network, of which only one can have that port.
        """
        return None
