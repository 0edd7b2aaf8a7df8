"""examples/transition_log: found by its entry point, it writes the transitions of real sandboxes."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.docs.pages import ROOT, parts, plugin
from tests.support.lifecycle import register

from shoal.app import Shoal
from shoal.config.loader import Loaded
from shoal.errors import ConfigError, Unavailable
from shoal.models.sandbox import SandboxRecord, State
from shoal.plugin import Transition
from shoal.plugin.interfaces import Observer
from shoal.plugin.manager import PluginManager

EXAMPLE = ROOT / "examples" / "transition_log"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The example on sys.path, with the metadata that installing it editable would write; a path for its file."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    info = tmp_path / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    points = project["entry-points"]
    (info / "entry_points.txt").write_text(
        "".join(f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in points[group].items()) for group in points)
    )
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.syspath_prepend(str(EXAMPLE))
    yield tmp_path / "transitions.jsonl"
    for name in [name for name in sys.modules if name.partition(".")[0] == "shoal_transition_log"]:
        del sys.modules[name]


def observer(**section: Any) -> Observer:
    """The plugin's observer, as the manager gets it."""
    components = register(PluginManager(Loaded(raw={"transition_log": section})))
    [found] = [each for each in components.observers if each.name == "transition_log"]
    return found


def transition(number: int = 1) -> Transition:
    now = datetime.now(UTC)
    record = SandboxRecord(
        id=f"sandbox-{number}", runtime="any", state=State.PENDING, since=now, created_at=now, entrypoint=["true"]
    )
    return Transition(record=record, before=None, after=State.PENDING, at=now)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_guide_shows_every_file_of_it_as_it_is() -> None:
    [part] = [part for part in parts("plugins.md") if part.heading == "A complete plugin"]
    files = [EXAMPLE / "pyproject.toml", *sorted((EXAMPLE / "shoal_transition_log").glob("[!_]*.py"))]
    assert [text for _, text in part.blocks] == [file.read_text(encoding="utf-8") for file in files]


def test_it_is_enabled_by_its_section_alone(installed: Path) -> None:
    assert "transition_log" in PluginManager(Loaded(raw={"transition_log": {"path": "any"}})).enabled
    assert "transition_log" not in PluginManager(Loaded(raw={})).enabled


def test_its_section_is_validated(installed: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        observer(queue_siez=5)
    assert str(caught.value).splitlines() == [
        "transition_log.queue_siez: unknown key; did you mean 'queue_size'?",
        "transition_log.path: required",
    ]


async def test_a_sandboxs_life_is_written(installed: Path) -> None:
    [runtime] = [part for part in parts("plugins.md") if part.heading.startswith("`shoal_register_runtimes(")]
    raw = {
        "server": {"host": "127.0.0.1"},
        "plugins": {"enabled": ["transition_log", "pretend"]},
        "transition_log": {"path": "~/transitions.jsonl"},
    }
    server = Shoal(Loaded(raw=raw), plugins={"pretend": plugin(runtime.blocks[0][1])})
    await server.start()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(server.asgi), base_url="http://localhost") as client:
        body = {"image": {"uri": "any"}, "entrypoint": ["true"], "resourceLimits": {}, "timeout": 60}
        made = (await client.post("/v1/sandboxes", json=body)).json()["id"]
        await client.get(f"/v1/sandboxes/{made}?wait=Running&timeout=30")
        assert (await client.delete(f"/v1/sandboxes/{made}")).status_code == 204
    await server.stop()
    found = lines(installed)
    assert {line["sandbox"] for line in found} == {made}
    steps = [(line.get("before"), line.get("after")) for line in found]
    assert steps[:2] == [(None, "Pending"), ("Pending", "Running")]
    assert steps[-1][1] is None


async def test_lines_are_appended_in_order(installed: Path) -> None:
    for first in (0, 500):
        log = observer(path=str(installed))
        await log.start()
        for number in range(first, first + 500):
            log.transition(transition(number))
        await log.ping()
        await log.stop()
    assert [line["sandbox"] for line in lines(installed)] == [f"sandbox-{number}" for number in range(1000)]


async def test_a_file_that_cannot_be_opened_stops_the_start(installed: Path) -> None:
    log = observer(path=str(installed / "missing" / "file"))
    with pytest.raises(ConfigError, match=r"^transition_log\.path: cannot open .*: No such file or directory$"):
        await log.start()
    await log.stop()


async def test_a_full_disk_shows_in_the_ping(installed: Path) -> None:
    log = observer(path="/dev/full")
    await log.start()
    await log.ping()
    log.transition(transition())
    await log.stop()
    with pytest.raises(Unavailable, match="No space left on device"):
        await log.ping()


def test_a_disk_that_is_far_behind_holds_nothing_up(installed: Path) -> None:
    log = observer(path=str(installed), queue_size=2)
    for number in range(5):
        log.transition(transition(number))  # nobody writes: it was not started


@pytest.mark.skipif(importlib.util.find_spec("hatchling") is None, reason="the build backend hatchling is missing")
def test_it_installs(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--target", tmp_path / "site", EXAMPLE], check=True, timeout=100)
    config = tmp_path / "shoal.toml"
    config.write_text('[transition_log]\npath = "~/transitions.jsonl"\n')
    answer = subprocess.run(
        [sys.executable, "-m", "shoal.cli.main", "plugins", "--json", "--config", config],
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        check=True,
        timeout=60,
    )
    [found] = [each for each in json.loads(answer.stdout) if each["name"] == "transition_log"]
    assert found["enabled"] is True
    assert (found["distribution"], found["version"]) == ("shoal-transition-log", "1.0.0")
    assert found["hooks"] == ["shoal_config_sections", "shoal_register_observers"]
