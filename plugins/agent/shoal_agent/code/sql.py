"""Code in ``sql``: one statement each, run on the MySQL server of the sandbox, in its database ``sandbox``."""

from __future__ import annotations

import contextlib
import json
import os

from shoal_agent.agent import RunningAgent
from shoal_agent.code import events
from shoal_agent.code.mysql import DatabaseError, MysqlConnection
from shoal_agent.code.run import Run

DATABASE = "sandbox"


class Statements:
    """The statements that run, by the id of their run."""

    def __init__(self, agent: RunningAgent) -> None:
        self._agent = agent
        self._running: dict[str, int] = {}
        """The server's thread of each."""
        self._interrupted: set[str] = set()

    def begin(self, code: str) -> Run:
        """Starts `code`. That there is no server is told by an error event."""
        identifier = os.urandom(16).hex()
        run = Run(identifier)
        self._agent.run_in_background(self._carry_out(identifier, code, run))
        return run

    async def interrupt(self, identifier: str) -> bool:
        """Ends a statement. False if none has this id."""
        thread = self._running.get(identifier)
        if thread is None:
            return False
        self._interrupted.add(identifier)
        with contextlib.suppress(DatabaseError):
            connection = await MysqlConnection.open()
            try:
                await connection.query(f"KILL QUERY {thread}")
            finally:
                connection.close()
        return True

    async def _carry_out(self, identifier: str, code: str, run: Run) -> None:
        connection = None
        name = "DBInitError"
        failure = None
        try:
            connection = await MysqlConnection.open()
            self._running[identifier] = connection.thread
            await connection.query(f"CREATE DATABASE IF NOT EXISTS {DATABASE}")
            await connection.query(f"USE {DATABASE}")
            name = "DBQueryError" if code.split()[:1] in (["SELECT"], ["select"]) else "DBExecError"
            found = await connection.query(code)
            if identifier not in self._interrupted:  # some statements give a result even so
                await _show(found, run)
        except DatabaseError as error:
            failure = events.failure(name, str(error), [str(error)])
        finally:
            self._running.pop(identifier, None)
            if identifier in self._interrupted:
                self._interrupted.discard(identifier)
                failure = events.interrupted("the statement was interrupted")
            if connection is not None:
                connection.close()
            run.end(failure)


async def _show(found: tuple[list[str], list[list[str | None]]] | int, run: Run) -> None:
    if isinstance(found, int):
        shown: dict[str, object] = {"columns": ["affected_rows"], "rows": [[found]]}
    else:
        shown = {"columns": found[0], "rows": found[1]}
    await run.emit(events.count(1))
    await run.emit(events.result({"text/plain": json.dumps(shown, ensure_ascii=False, separators=(",", ":"))}))
