"""The API key of a server that nobody configured: when it is made, how it is kept, and what is said."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from shoal.cli import first_key
from shoal.config.loader import Loaded, load
from shoal.errors import ConfigError


def test_it_is_made_once_and_kept_for_its_owner_alone(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loaded = first_key.provide(load(None, {}))
    kept = home / ".opensandbox" / "keys" / "api-key"
    key = kept.read_text().strip()
    assert loaded.raw == {"server": {"host": "127.0.0.1", "api_key": key}}
    assert len(key) >= 32
    assert (kept.stat().st_mode & 0o777, kept.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    said = capsys.readouterr().err
    assert str(kept) in said
    assert key not in said
    assert first_key.provide(load(None, {})).raw == loaded.raw
    assert "made an API key" not in capsys.readouterr().err


def test_the_command_line_of_opensandbox_is_told(home: Path) -> None:
    loaded = first_key.provide(Loaded(raw={"server": {"port": 9000}}))
    file = home / ".opensandbox" / "config.toml"
    told = {"api_key": loaded.raw["server"]["api_key"], "domain": "127.0.0.1:9000"}
    assert tomllib.loads(file.read_text())["connection"] == told
    assert file.stat().st_mode & 0o777 == 0o600


def test_what_it_was_told_before_stays(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = home / ".opensandbox" / "config.toml"
    file.parent.mkdir()
    file.write_text("mine")
    first_key.provide(load(None, {}))
    assert file.read_text() == "mine"
    assert f"{file} is there already" in capsys.readouterr().err


def test_a_configuration_a_key_or_consent_make_none(home: Path) -> None:
    assert first_key.is_wanted(load(None, {}), {})
    assert not first_key.is_wanted(load(None, {}), {"OPENSANDBOX_SERVER_API_KEY": ""})
    assert not first_key.is_wanted(load(None, {}), {"OPENSANDBOX_INSECURE_SERVER": "YES"})
    (home / ".sandbox.toml").write_text("")
    assert not first_key.is_wanted(load(None, {}), {})


def test_an_empty_file_is_told(home: Path) -> None:
    kept = home / ".opensandbox" / "keys" / "api-key"
    kept.parent.mkdir(parents=True)
    kept.touch()
    with pytest.raises(ConfigError, match="is empty"):
        first_key.provide(load(None, {}))


def test_a_place_that_cannot_be_written_is_told(home: Path) -> None:
    (home / ".opensandbox").write_text("in the way")
    with pytest.raises(ConfigError, match=r"cannot keep an API key in .*--no-key"):
        first_key.provide(load(None, {}))
