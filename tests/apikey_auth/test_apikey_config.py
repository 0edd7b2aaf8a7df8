"""``[apikey_auth]``, ``server.api_key`` and the environment: which keys are configured, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from structlog.testing import capture_logs

import shoal_apikey.hooks
from shoal.config.settings import ServerSettings, Settings
from shoal.errors import ConfigError, Unauthenticated
from shoal.plugin import Lifecycle, PluginContext
from shoal.plugin.interfaces import AuthRequest, Principal
from shoal_apikey.authenticator import ApiKeyAuthenticator
from shoal_apikey.config import ApiKeySettings
from shoal_apikey.digests import digest
from shoal_apikey.hooks import KEY_VARIABLE

KEY = "correct-horse-battery-staple"
HASH = f"sha256:{digest(KEY).hex()}"


@pytest.fixture(autouse=True)
def no_key_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)


def section(*keys: dict[str, Any], **settings: Any) -> ApiKeySettings:
    """The section as it is read from a file."""
    return msgspec.convert({"keys": list(keys), **settings}, ApiKeySettings)


async def registered(settings: ApiKeySettings, api_key: str | None = None) -> ApiKeyAuthenticator | None:
    """What the hook hands to the kernel, started."""
    server = Settings(server=ServerSettings(api_key=api_key))
    context = PluginContext(server, {ApiKeySettings: settings}, cast("Lifecycle", object()))
    authenticators = shoal_apikey.hooks.shoal_register_authenticators(context)
    if not authenticators:
        return None
    (authenticator,) = authenticators
    assert isinstance(authenticator, ApiKeyAuthenticator)
    await authenticator.start()
    await authenticator.stop()
    return authenticator


async def caller(authenticator: ApiKeyAuthenticator | None, key: str) -> Principal | None:
    assert authenticator is not None
    return await authenticator.authenticate(AuthRequest("api", "http", "GET", "/sandboxes", lambda _: key))


async def test_without_any_key_nothing_is_registered() -> None:
    assert await registered(section()) is None


@pytest.mark.parametrize("blank", ["", "   "])
async def test_a_blank_key_counts_as_none(blank: str) -> None:
    assert await registered(section(), api_key=blank) is None


async def test_the_servers_key_may_do_everything() -> None:
    authenticator = await registered(section(), api_key=KEY)
    assert await caller(authenticator, KEY) == Principal(name="server")


async def test_the_environment_replaces_the_servers_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "from-the-environment")
    authenticator = await registered(section(), api_key=KEY)
    assert await caller(authenticator, "from-the-environment") == Principal(name="server")
    with pytest.raises(Unauthenticated):
        await caller(authenticator, KEY)


async def test_an_empty_environment_variable_removes_the_servers_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "")
    assert await registered(section(), api_key=KEY) is None


async def test_the_servers_key_is_a_key_even_if_it_looks_like_a_hash() -> None:
    authenticator = await registered(section(), api_key=HASH)
    assert await caller(authenticator, HASH) == Principal(name="server")


async def test_keys_from_a_hash_a_variable_and_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DASHBOARD_KEY", f" {HASH}\n")
    file = tmp_path / "agents.keys"
    file.write_text("# rotated in March\n\nold-key\n  new-key  \n")
    authenticator = await registered(
        section(
            {"name": "ci", "hash": f"sha256:{digest('ci-key').hex().upper()}", "scopes": ["read", "write"]},
            {"name": "dashboard", "env": "DASHBOARD_KEY", "scopes": ["read"]},
            {"name": "agents", "file": str(file)},
        )
    )
    names = {key: await caller(authenticator, key) for key in ("ci-key", KEY, "old-key", "new-key")}
    assert names == {
        "ci-key": Principal(name="ci", scopes=frozenset({"read", "write"})),
        KEY: Principal(name="dashboard", scopes=frozenset({"read"})),
        "old-key": Principal(name="agents"),
        "new-key": Principal(name="agents"),
    }
    with pytest.raises(Unauthenticated):
        await caller(authenticator, HASH)


@pytest.mark.parametrize(
    ("key", "complaint"),
    [
        ({"name": "ci"}, "key ci: exactly one of file, env and hash"),
        ({"name": "ci", "env": "CI_KEY", "file": "/keys"}, "key ci: exactly one of file, env and hash"),
        ({"name": "ci", "hash": KEY}, "key ci: hash must be 'sha256:' and 64 hexadecimal digits"),
        ({"name": "ci", "hash": HASH[:-1]}, "key ci: hash must be"),
        ({"name": "ci", "hash": HASH, "scopes": []}, "key ci: scopes must not be empty"),
        ({"name": "ci", "hash": HASH, "scopes": ["admin"]}, "Invalid enum value 'admin'"),
        ({"name": "ci key", "hash": HASH}, "name must be"),
        ({"name": "server", "hash": HASH}, "the name server is taken"),
        ({"name": "anonymous", "hash": HASH}, "the name anonymous is taken"),
        ({"hash": HASH}, "missing required field `name`"),
        ({"name": "ci", "hash": HASH, "scope": "read"}, "unknown field `scope`"),
    ],
)
def test_a_wrong_section_is_refused_without_echoing_a_key(key: dict[str, Any], complaint: str) -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        section(key)
    assert complaint in str(caught.value)
    assert "$.keys[0]" in str(caught.value)
    assert KEY not in str(caught.value)
    assert digest(KEY).hex()[:-1] not in str(caught.value)


def test_two_keys_of_one_name_are_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="two keys are named ci"):
        section({"name": "ci", "hash": HASH}, {"name": "ci", "env": "CI_KEY"})


@pytest.mark.parametrize("value", [None, "", " \n"])
async def test_an_unset_variable_is_refused(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    monkeypatch.delenv("CI_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("CI_KEY", value)
    with pytest.raises(ConfigError, match="key ci: environment variable CI_KEY is not set, or blank"):
        await registered(section({"name": "ci", "env": "CI_KEY"}))


async def test_a_malformed_hash_in_a_variable_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI_KEY", "sha256:deadbeef")
    with pytest.raises(ConfigError, match="key ci: environment variable CI_KEY: a hash must be") as caught:
        await registered(section({"name": "ci", "env": "CI_KEY"}))
    assert "deadbeef" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "there is no such file, or it holds no key"),
        (b"", "there is no such file, or it holds no key"),
        (b"# all revoked\n\n", "there is no such file, or it holds no key"),
        (b"good-key\nsha256:deadbeef\n", "line 2: a hash must be"),
        (b"\xff\xfe", "it is not UTF-8 text"),
        (b"k" * 65537, "it is larger than 65536 bytes"),
    ],
)
async def test_a_file_that_holds_no_usable_key_is_refused_at_start(
    tmp_path: Path, content: bytes | None, complaint: str
) -> None:
    path = tmp_path / "keys"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match="key ci") as caught:
        await registered(section({"name": "ci", "file": str(path)}))
    assert complaint in str(caught.value)
    assert "deadbeef" not in str(caught.value)


async def test_a_file_that_is_a_folder_is_refused_at_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"key ci: .*Is a directory"):
        await registered(section({"name": "ci", "file": str(tmp_path)}))


async def test_one_key_under_two_names_is_refused_at_start() -> None:
    with pytest.raises(ConfigError, match="key ci: it holds a key of another name as well"):
        await registered(section({"name": "ci", "hash": HASH}), api_key=KEY)


async def test_no_key_or_hash_shows_in_a_repr() -> None:
    settings = section({"name": "ci", "hash": HASH})
    authenticator = await registered(settings)
    assert authenticator is not None
    shown = (
        repr(settings)
        + repr(authenticator)
        + repr(vars(authenticator))
        + repr(vars(authenticator._keyring)["_entries"])
    )
    assert digest(KEY).hex() not in shown
    assert repr(digest(KEY)) not in shown


def test_it_is_always_wanted_and_owns_its_section() -> None:
    assert shoal_apikey.hooks.shoal_wanted()
    (owned,) = shoal_apikey.hooks.shoal_config_sections()
    assert (owned.name, owned.kind) == ("apikey_auth", ApiKeySettings)


PROXIED = AuthRequest("proxy", "http", "GET", "/v1/sandboxes/id/proxy/80/", lambda _: None)
NAMED = {"name": "ci", "hash": f"sha256:{digest('ci-key').hex()}"}


@pytest.mark.parametrize(
    ("settings", "is_open"),
    [
        (section(), True),
        (section(open_proxy=False), False),
        (section(NAMED), False),
        (section(NAMED, open_proxy=True), True),
    ],
)
async def test_the_proxy_is_open_beside_the_servers_key_alone(settings: ApiKeySettings, is_open: bool) -> None:
    authenticator = await registered(settings, api_key=KEY)
    assert authenticator is not None
    principal = await authenticator.authenticate(PROXIED)
    assert (principal is not None and principal.name == "anonymous") is is_open


async def test_that_it_is_open_by_default_is_told() -> None:
    told = []
    for settings in (section(), section(open_proxy=True), section(NAMED)):
        authenticator = await registered(settings, api_key=KEY)
        assert authenticator is not None
        with capture_logs() as logged:
            authenticator.check_config()
        told.append([(entry["log_level"], "needs no key" in entry["event"]) for entry in logged])
    assert told == [[("warning", True)], [], []]
