"""Log files: the ``[log]`` keys of opensandbox-server, rotation, and files that someone else moves."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import structlog
from tests.kernel.logs.output import Output

from shoal import logs
from shoal.config.settings import LogSettings
from shoal.errors import ConfigError
from shoal.logs.sinks import FileSink
from shoal.web.seam import AccessEntry


def numbered(count: int) -> list[bytes]:
    """Lines of ten bytes."""
    return [b"%09d\n" % number for number in range(count)]


def test_files_instead_of_the_streams(output: Output, tmp_path: Path, access_entry: Callable[..., AccessEntry]) -> None:
    main, access = tmp_path / "deep" / "er" / "s.log", tmp_path / "other" / "a.log"
    output.configure(file_enabled=True, file_path=str(main), access_file_path=str(access))
    structlog.get_logger("t").info("hello")
    logs.log_access(access_entry())
    assert output.text() == output.access_text() == ""
    assert json.loads(main.read_text())["event"] == "hello"
    assert json.loads(access.read_text())["status"] == 200


def test_the_defaults_are_in_the_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    logs.configure(LogSettings(file_enabled=True))
    structlog.get_logger("t").info("hello")
    logs.shutdown(60)
    assert (tmp_path / "logs/opensandbox/server.log").read_text().count("\n") == 1
    assert (tmp_path / "logs/opensandbox/access.log").read_text() == ""


def test_a_tilde_in_the_configuration_is_a_name_like_any_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    logs.configure(LogSettings(file_enabled=True, file_path="~/s.log", access_file_path="~/a.log"))
    logs.shutdown(60)
    assert (tmp_path / "~" / "s.log").exists()


def test_one_file_for_both(output: Output, tmp_path: Path, access_entry: Callable[..., AccessEntry]) -> None:
    both = tmp_path / "both.log"
    output.configure(file_enabled=True, file_path=str(both), access_file_path=str(both))
    structlog.get_logger("t").info("hello")
    logs.log_access(access_entry())
    output.text()
    assert sorted(json.loads(line)["event"] for line in both.read_text().splitlines()) == ["hello", "request"]


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"cannot write the log file .*s\.log: Not a directory"):
        logs.configure(LogSettings(file_enabled=True, file_path=str(tmp_path / "file" / "s.log")))
    assert not structlog.is_configured()


def test_rotation_keeps_every_line_in_order(tmp_path: Path) -> None:
    sink = FileSink(tmp_path / "s.log", max_bytes=25, backups=3)
    sink.write(numbered(7))
    sink.close()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        "s.log": b"000000006\n",
        "s.log.1": b"000000004\n000000005\n",
        "s.log.2": b"000000002\n000000003\n",
        "s.log.3": b"000000000\n000000001\n",
    }


def test_rotation_drops_the_oldest(tmp_path: Path) -> None:
    sink = FileSink(tmp_path / "s.log", max_bytes=10, backups=1)
    sink.write(numbered(5))
    sink.close()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        "s.log": b"000000004\n",
        "s.log.1": b"000000003\n",
    }


def test_a_restart_goes_on_with_the_file(tmp_path: Path) -> None:
    for _ in range(2):
        sink = FileSink(tmp_path / "s.log", max_bytes=25, backups=1)
        sink.write(numbered(1))
        sink.close()
    sink = FileSink(tmp_path / "s.log", max_bytes=25, backups=1)
    sink.write(numbered(1))
    sink.close()
    assert (tmp_path / "s.log.1").stat().st_size == 20
    assert (tmp_path / "s.log").stat().st_size == 10


def test_no_backups_means_no_rotation(tmp_path: Path) -> None:
    sink = FileSink(tmp_path / "s.log", max_bytes=10, backups=0)
    sink.write(numbered(5))
    sink.close()
    assert [path.name for path in tmp_path.iterdir()] == ["s.log"]
    assert (tmp_path / "s.log").stat().st_size == 50


def test_a_line_longer_than_the_limit_is_written_all_the_same(tmp_path: Path) -> None:
    sink = FileSink(tmp_path / "s.log", max_bytes=5, backups=1)
    sink.write(numbered(1))
    sink.close()
    assert (tmp_path / "s.log").read_bytes() == numbered(1)[0]


def test_a_file_that_was_moved_away_is_opened_anew(tmp_path: Path) -> None:
    path = tmp_path / "s.log"
    sink = FileSink(path, max_bytes=1000, backups=1)
    sink.write(numbered(1))
    path.rename(tmp_path / "moved")
    sink.write(numbered(2))
    sink.close()
    assert path.read_bytes() == b"".join(numbered(2))
    assert (tmp_path / "moved").read_bytes() == numbered(1)[0]


def test_trouble_with_the_disk_is_survived(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    sink = FileSink(folder / "s.log", max_bytes=1000, backups=1)
    folder.rename(tmp_path / "gone")
    sink.write(numbered(1))
    (tmp_path / "gone").rename(folder)
    sink.write(numbered(2))
    sink.close()
    assert (folder / "s.log").read_bytes() == b"".join(numbered(2))
