"""A plugin that nobody enabled is imported only where it must be asked, and neither ends nor delays the process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.kernel.plugins.test_manager import SharkPlugin
from tests.support.lifecycle import empty_lifecycle

from shoal.config.loader import Loaded
from shoal.errors import ConfigError
from shoal.plugin import hookimpl
from shoal.plugin.manager import PluginManager, survey

Install = Callable[..., None]
LISTED: dict[str, Any] = {"plugins": {"enabled": ["s"]}}
BY_TYPE: dict[str, Any] = {"runtime": {"type": "shark"}}


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Installs a plugin of one module, of a stranger's distribution."""

    def install(name: str, source: str) -> None:
        module = f"{tmp_path.name.replace('-', '_')}_{name}"
        info = tmp_path / f"{module}-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1\n")
        (info / "entry_points.txt").write_text(f"[shoal.plugins]\n{name} = {module}\n")
        (tmp_path / f"{module}.py").write_text(source)

    monkeypatch.syspath_prepend(str(tmp_path))
    return install


def enabled(raw: dict[str, Any]) -> list[str]:
    manager = PluginManager(Loaded(raw=raw), {"s": SharkPlugin()})
    manager.register(empty_lifecycle())
    return manager.enabled


def test_with_a_list_nothing_else_is_imported(install: Install, tmp_path: Path) -> None:
    witness = tmp_path / "imported"
    install("reef", f"open({str(witness)!r}, 'w').close()")
    assert enabled(LISTED) == ["s", "sqlite_store"]
    assert not witness.exists()
    assert "reef" not in enabled(BY_TYPE)
    assert witness.exists()  # without a list it is asked


SOURCES = {
    "raise SystemExit(3)": "failed in import: SystemExit: 3",
    "raise KeyError('coral')": "failed in import: KeyError: 'coral'",
    "import threading; threading.Event().wait()": "did not return from import within 2 s",
    "class Odd(BaseException): pass\nraise Odd": "failed in import: Odd: ",
}


@pytest.mark.parametrize("source", SOURCES, ids=range(len(SOURCES)))
def test_an_import_that_fails_hangs_or_exits_is_told_of_and_nothing_else(
    install: Install, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "did not" in SOURCES[source]:
        monkeypatch.setattr("shoal.plugin.discovery.IMPORT_TIMEOUT", 2.0)
    install("reef", source)
    assert "reef" not in enabled(BY_TYPE)
    told = {status.name: status.failure for status in survey(Loaded(raw=BY_TYPE), {"s": SharkPlugin()})}
    assert told["reef"] == f"plugin 'reef' {SOURCES[source]}"


def test_one_that_is_asked_for_has_the_time_that_it_wants_and_its_exit_is_a_line(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shoal.plugin.discovery.IMPORT_TIMEOUT", 0.0)
    monkeypatch.setattr("shoal.plugin.discovery.SLOW_SECONDS", 0.1)
    install("slow", "import time; time.sleep(0.3)")
    manager = PluginManager(Loaded(raw={"plugins": {"enabled": ["s", "slow"]}}), {"s": SharkPlugin()})
    assert next(line for line in manager.slow if "'slow'" in line).endswith("s in import")
    install("reef", "raise SystemExit(3)")
    with pytest.raises(ConfigError, match=r"^plugin 'reef' failed in import: SystemExit: 3$"):
        enabled({"plugins": {"enabled": ["s", "reef"]}})


@pytest.mark.parametrize("error", [SystemExit(3), ValueError("coral")])
def test_a_hook_that_asks_whether_it_is_wanted_ends_nothing(error: BaseException) -> None:
    class Wild:
        @hookimpl
        def shoal_wanted(self) -> bool:
            raise error

    manager = PluginManager(Loaded(raw=BY_TYPE), {"s": SharkPlugin(), "wild": Wild()})
    assert "wild" not in manager.enabled


def test_a_process_with_a_hanging_plugin_ends(install: Install, tmp_path: Path) -> None:
    install("reef", "import threading; threading.Event().wait()")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from shoal.plugin import discovery; discovery.IMPORT_TIMEOUT = 0.2\n"
        "from shoal.cli.main import main; sys.exit(main(['plugins']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert "plugin 'reef' did not return from import within 0.2 s" in done.stdout
