"""Statements on a real MySQL or MariaDB server on loopback, whose root has no password."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from tests.agent.code.runs import Background, name, value
from tests.agent.commands.streams import Run, post

pytestmark = pytest.mark.needs("mysql")


def sql(client: httpx.Client, statement: str) -> Run:
    return post(client, "/code", {"code": statement, "context": {"language": "sql"}})


def answer(run: Run) -> Any:
    return json.loads(value(run))


def test_rows_and_changes(client: httpx.Client) -> None:
    run = sql(client, "select 1 + 1 as two, null as n, 'é☃' as t")
    assert answer(run) == {"columns": ["two", "n", "t"], "rows": [["2", None, "é☃"]]}
    assert answer(sql(client, "create table if not exists shoal_test (a int)"))["columns"] == ["affected_rows"]
    try:
        assert answer(sql(client, "insert into shoal_test values (1), (2)")) == {
            "columns": ["affected_rows"],
            "rows": [[2]],
        }
        assert answer(sql(client, "select a from shoal_test where a > 5")) == {"columns": ["a"], "rows": []}
        long = answer(sql(client, "select repeat('x', 300000) as x"))["rows"][0][0]
        assert long == "x" * 300_000
    finally:
        sql(client, "drop table shoal_test")


def test_errors(client: httpx.Client) -> None:
    run = sql(client, "select nope")
    assert name(run) == "DBQueryError"
    assert "nope" in str(run.value)
    assert name(sql(client, "insert into nowhere values (1)")) == "DBExecError"


def test_an_interrupt_ends_the_statement(client: httpx.Client) -> None:
    run = Background(client, "", "select benchmark(1000000000000, md5('x'))", language="sql")
    run.wait_for('"init"')
    identifier = run.identifier()
    while client.delete("/code", params={"id": identifier}).status_code == 404:
        pass  # its connection is not open yet
    assert name(run.end()) == "KeyboardInterrupt"
