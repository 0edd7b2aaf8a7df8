"""Folders that an agent of any user may use, and clients of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.agent.files.place import Place
from tests.agent.program import USER


@pytest.fixture(params=["own", "user"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    """Under an agent of this process's user, then of an ordinary one."""
    user = request.param == "user"
    agent = request.getfixturevalue("user_agent" if user else "agent")
    found = Place(agent, USER if user else None)
    yield found
    found.http.close()
