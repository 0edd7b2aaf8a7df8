"""Puts the files into the agent."""

from __future__ import annotations

from shoal_agent.accounts import Accounts
from shoal_agent.agent import RunningAgent
from shoal_agent.files.identity import PREFIX, Identities
from shoal_agent.files.routes import Files
from shoal_agent.files.threads import Threads
from shoal_agent.http.routes import ANY, Routes
from shoal_agent.paths import Paths


def add_routes(agent: RunningAgent, routes: Routes) -> None:
    """The routes of section 8."""
    environment, accounts = agent.environment.daemon, Accounts()
    Files(Paths.of_daemon(environment), accounts, Threads()).add_to(routes)
    identities = Identities(accounts, agent.children)
    agent.on_stop.append(identities.close)
    routes.add(ANY, f"{PREFIX}{{uid}}/{{gid}}/{{rest...}}", identities.handle)
