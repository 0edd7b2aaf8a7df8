"""JavaScript, run by the node of the image."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import httpx
import pytest
from tests.agent.code.runs import contexts, execute, interrupted, kinds, name, value

pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")


@pytest.fixture
def context(client: httpx.Client) -> Iterator[str]:
    yield from contexts(client, "javascript")


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("2 + 2", "4"),
        ("{a: 1}", "{ a: 1 }"),
        ("{ let a = 1; a + 1 }", "2"),
        ("null", "null"),
        ("await new Promise((done) => setTimeout(() => done(9), 5))", "9"),
        ("require('path').basename('/a/b')", "'b'"),
        ("await import('path').then((m) => typeof m.join)", "'function'"),
        ("'é☃'", "'é☃'"),
    ],
)
def test_the_last_value_is_the_result(client: httpx.Client, context: str, code: str, expected: str) -> None:
    run = execute(client, context, code)
    assert kinds(run) == ["init", "execution_count", "result", "execution_complete"]
    assert value(run) == expected


def test_code_without_a_value(client: httpx.Client, context: str) -> None:
    assert kinds(execute(client, context, "const nothing = 1")) == ["init", "execution_complete"]


def test_state_lasts(client: httpx.Client, context: str) -> None:
    execute(client, context, "let x = 3; const y = await Promise.resolve(4); function f() { return x * y }")
    assert value(execute(client, context, "f()")) == "12"


def test_output(client: httpx.Client, context: str) -> None:
    child = "require('child_process').execSync('echo c', {stdio: 'inherit'})"
    run = execute(client, context, f"console.log('o'); console.error('e'); {child}; 1")
    assert "".join(run.texts()) == "o\nc\n"
    assert run.texts("stderr") == ["e\n"]
    assert kinds(run)[-2:] == ["result", "execution_complete"]


@pytest.mark.parametrize(
    ("code", "ename", "evalue"),
    [
        ("nope", "ReferenceError", "nope is not defined"),
        ("await (async () => { throw new RangeError('far') })()", "RangeError", "far"),
        ("function f(", "SyntaxError", ""),
        ("let x = ;", "SyntaxError", ""),
        ("throw 5", "Uncaught", "5"),
        ("throw null", "Uncaught", "null"),
    ],
)
def test_what_is_thrown_is_the_last_event(
    client: httpx.Client, context: str, code: str, ename: str, evalue: str
) -> None:
    run = execute(client, context, code)
    assert run.error is not None
    assert run.error["ename"] == ename
    assert evalue in run.error["evalue"]
    assert run.error["traceback"]
    assert not any("node:" in line or "[eval]" in line for line in run.error["traceback"])
    assert value(execute(client, context, "1")) == "1"


@pytest.mark.parametrize(
    "code", ["while (true) {}", "await new Promise(() => {})", "require('child_process').execSync('sleep 60')"]
)
def test_an_interrupt_ends_the_code_and_keeps_the_state(client: httpx.Client, context: str, code: str) -> None:
    execute(client, context, "var kept = 5")
    assert name(interrupted(client, context, f"console.log('ready'); {code}")) == "KeyboardInterrupt"
    assert value(execute(client, context, "kept")) == "5"


def test_code_that_notices_no_interrupt_is_ended(client: httpx.Client, context: str) -> None:
    code = "await null; console.log('ready'); while (true) {}"
    assert name(interrupted(client, context, code)) == "InterpreterDied"
    assert value(execute(client, context, "1")) == "1"


def test_an_exit_ends_the_run(client: httpx.Client, context: str) -> None:
    assert name(execute(client, context, "process.exit(3)")) == "InterpreterDied"
    assert value(execute(client, context, "1")) == "1"
