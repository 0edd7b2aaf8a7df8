"""The guard against starting open to the network."""

from __future__ import annotations

import io
import os
import pty

import pytest

from shoal.config.settings import ServerSettings, Settings
from shoal.errors import ConfigError
from shoal.plugin.interfaces import Authenticator, AuthRequest, Principal
from shoal.web import guard
from shoal.web.guard import ask_on_terminal, is_loopback, refuse_open_start

LOOPBACK = ["127.0.0.1", "127.8.9.10", "::1", "[::1]", "::ffff:127.0.0.1", "localhost", "LocalHost"]
EVERYWHERE = "0.0.0.0"
OPEN = [EVERYWHERE, "::", "10.0.0.1", "::ffff:10.0.0.1", "example.com", "localhost.example.com", "127.1"]


class Anybody(Authenticator):
    name = "anybody"

    async def authenticate(self, request: AuthRequest) -> Principal | None:
        return Principal(name="anybody")


def settings(host: str) -> Settings:
    return Settings(server=ServerSettings(host=host))


def unasked() -> str | None:
    raise AssertionError("nobody should be asked")


@pytest.mark.parametrize("host", LOOPBACK)
def test_loopback_needs_no_authentication(host: str) -> None:
    assert is_loopback(host)
    refuse_open_start(settings(host), [], {}, ask=unasked)


@pytest.mark.parametrize("host", OPEN)
def test_an_open_address_is_refused(host: str) -> None:
    with pytest.raises(ConfigError, match="without authentication") as caught:
        refuse_open_start(settings(host), [], {}, ask=lambda: None)
    assert host in str(caught.value)


def test_an_authenticator_is_enough() -> None:
    refuse_open_start(settings(EVERYWHERE), [Anybody()], {}, ask=unasked)


def test_consent_in_the_environment() -> None:
    refuse_open_start(settings("::"), [], {"OPENSANDBOX_INSECURE_SERVER": "YES"}, ask=unasked)


@pytest.mark.parametrize("value", ["yes", "Yes", " YES", "YES ", "1", "true", ""])
def test_only_the_exact_word_is_consent(value: str) -> None:
    with pytest.raises(ConfigError):
        refuse_open_start(settings("::"), [], {"OPENSANDBOX_INSECURE_SERVER": value}, ask=lambda: value)


def test_consent_on_the_terminal() -> None:
    refuse_open_start(settings("::"), [], {}, ask=lambda: "YES")


def test_without_a_terminal_nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("YES\n"))
    assert ask_on_terminal() is None


def test_a_terminal_is_asked(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    person, terminal = pty.openpty()
    os.write(person, b"YES\n")
    with os.fdopen(terminal) as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        assert ask_on_terminal() == "YES"
    os.close(person)
    assert "Type YES" in capsys.readouterr().err


def test_a_silent_terminal_is_not_consent(monkeypatch: pytest.MonkeyPatch) -> None:
    person, terminal = pty.openpty()
    monkeypatch.setattr(guard, "ASK_SECONDS", 0.01)
    with os.fdopen(terminal) as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        assert ask_on_terminal() is None
    os.close(person)
