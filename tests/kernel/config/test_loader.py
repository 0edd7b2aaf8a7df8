"""Where the configuration comes from."""

from __future__ import annotations

from pathlib import Path

import pytest

from shoal.config import loader
from shoal.config.loader import load
from shoal.errors import ConfigError


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_no_file_is_the_embedded_default_on_loopback(home: Path) -> None:
    loaded = load(None, {})
    assert loaded.source is None
    assert loaded.raw == {"server": {"host": "127.0.0.1"}}


def test_the_file_in_the_home_directory(home: Path) -> None:
    (home / ".sandbox.toml").write_text("[server]\nport = 1\n")
    assert load(None, {}).raw == {"server": {"port": 1}}


def test_the_environment_beats_the_home_directory_and_the_flag_beats_both(home: Path) -> None:
    (home / ".sandbox.toml").write_text("[server]\nport = 1\n")
    (home / "env.toml").write_text("[server]\nport = 2\n")
    (home / "flag.toml").write_text("[server]\nport = 3\n")
    environ = {loader.PATH_VARIABLE: "~/env.toml"}
    assert load(None, environ).raw["server"]["port"] == 2
    assert load(home / "flag.toml", environ).raw["server"]["port"] == 3


def test_an_empty_variable_names_no_file(home: Path) -> None:
    assert load(None, {loader.PATH_VARIABLE: ""}).source is None


@pytest.mark.parametrize("how", ["flag", "environment"])
def test_a_named_file_must_be_there(home: Path, how: str) -> None:
    missing = home / "missing.toml"
    with pytest.raises(ConfigError, match=r"cannot read .*missing\.toml: No such file"):
        load(missing if how == "flag" else None, {loader.PATH_VARIABLE: str(missing)})


def test_bad_toml_says_where(home: Path) -> None:
    (home / "bad.toml").write_text("[server]\nport = = 1\n")
    with pytest.raises(ConfigError, match=r"bad\.toml: not valid TOML: .*line 2, column 8"):
        load(home / "bad.toml", {})


@pytest.mark.parametrize("text", ["a = " + "[" * 5000, "a = " + "9" * 5000])
def test_toml_that_python_cannot_take(home: Path, text: str) -> None:
    (home / "bad.toml").write_text(text)
    with pytest.raises(ConfigError, match=r"bad\.toml: "):
        load(home / "bad.toml", {})


def test_the_embedded_default_is_not_shared(home: Path) -> None:
    load(None, {}).raw["server"]["host"] = "0.0.0.0"
    assert load(None, {}).raw == {"server": {"host": "127.0.0.1"}}


def test_text_that_is_not_utf8(home: Path) -> None:
    (home / "bad.toml").write_bytes(b"[server]\nhost = '\xff'\n")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load(home / "bad.toml", {})
