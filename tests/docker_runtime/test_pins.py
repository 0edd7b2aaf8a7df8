"""Pins: what the engine is given instead of a path that a sandbox could change."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from shoal.kit.walk import identity
from shoal_docker.volumes import mounts, pins
from shoal_docker.volumes.found import engine_process, identities
from shoal_docker.volumes.pins import Pins

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts")


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Pins]:
    """As `Pins.start` leaves them, in a directory of the test's own."""
    found = Pins(str(tmp_path / "pins"))
    found._own = f"{found._top}/engine"
    found._prepare()
    found.able = True
    yield found
    for folder in Path(found._own).iterdir():
        found.release(folder.name)
    mounts.detach(found._top)


def pinned(made: Pins, path: Path, sandbox_id: str) -> Path:
    handle = os.open(path, os.O_PATH)
    try:
        target, placed = made.place(sandbox_id, handle)
        assert placed.identity == identity(handle) != placed.stand_in
    finally:
        os.close(handle)
    return Path(target)


def sandbox() -> str:
    return str(uuid.uuid4())


def test_a_pin_shows_what_was_opened_whatever_its_name_means_later(made: Pins, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "f").write_text("mine")
    one = sandbox()
    target = pinned(made, tmp_path / "a", one)
    (tmp_path / "a").rename(tmp_path / "b")
    (tmp_path / "a").symlink_to("/etc")
    assert (target / "f").read_text() == "mine"
    file = pinned(made, tmp_path / "b" / "f", one)
    assert file.read_text() == "mine"
    made.release(one)
    assert list(Path(made._own).iterdir()) == []
    assert (tmp_path / "b" / "f").read_text() == "mine"
    made.release(one)


def test_no_ordinary_user_has_a_way_to_a_pin(made: Pins, tmp_path: Path) -> None:
    """A pin lies behind directories that may be closed to him."""
    target = pinned(made, tmp_path, sandbox())
    assert [oct(folder.stat().st_mode & 0o777) for folder in target.parents[:3]] == ["0o700"] * 3


def test_what_is_mounted_below_is_seen_and_stays_mounted_there(made: Pins, tmp_path: Path) -> None:
    """Also where the mounts of the machine tell one another of what is unmounted."""
    volume = tmp_path / "volume"
    (volume / "below").mkdir(parents=True)
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "f").write_text("inner")
    mounts.bind(str(volume), str(volume))
    os.system(f"mount --make-rshared {volume}")  # noqa: S605 - what util-linux does, on a directory of this test
    mounts.bind(str(tmp_path / "inner"), str(volume / "below"))
    os.system(f"mount --make-rshared {volume}")  # noqa: S605 - the same
    try:
        one = sandbox()
        target = pinned(made, volume, one)
        assert (target / "below" / "f").read_text() == "inner"
        made.release(one)
        assert (volume / "below" / "f").read_text() == "inner"
    finally:
        mounts.detach(str(volume))


def test_a_crash_at_any_point_leaves_what_is_found_again(
    made: Pins, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known, gone, young = sandbox(), sandbox(), sandbox()
    (tmp_path / "f").touch()
    for each in (known, gone):
        pinned(made, tmp_path / "f", each)
    half = Path(made._own) / gone / "half"
    half.mkdir()
    with monkeypatch.context() as patched:
        patched.setattr(pins, "ABANDONED_SECONDS", -60.0)
        made.sweep(lambda sandbox_id: sandbox_id == known)
    pinned(made, tmp_path / "f", young)
    made.sweep(lambda sandbox_id: sandbox_id == known)
    assert {folder.name for folder in Path(made._own).iterdir()} == {known, young}, "another server may be making one"
    assert (tmp_path / "f").exists()


def test_one_that_cannot_be_removed_does_not_keep_the_others(
    made: Pins, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that a mount by hand covers."""
    stuck, gone = sandbox(), sandbox()
    for each in (stuck, gone):
        pinned(made, tmp_path, each)
    release = made.release

    def releasing(sandbox_id: str) -> None:
        if sandbox_id == stuck:
            raise OSError(16, "it is still mounted")
        release(sandbox_id)

    with monkeypatch.context() as patched:
        patched.setattr(pins, "ABANDONED_SECONDS", -60.0)
        patched.setattr(made, "release", releasing)
        made.sweep(lambda sandbox_id: False)
        made.sweep(lambda sandbox_id: False)
    assert [folder.name for folder in Path(made._own).iterdir()] == [stuck]


def test_a_second_server_covers_nothing(made: Pins, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "f").write_text("mine")
    target = pinned(made, tmp_path / "a", sandbox())
    other = Pins(made._top)
    other._own = f"{made._top}/other"
    other._prepare()
    assert (target / "f").read_text() == "mine"
    assert [path for _, path in mounts.listed("self")].count(made._top) == 1


@pytest.mark.parametrize("sandbox_id", ["..", "../..", "", "a/b"])
def test_an_id_is_never_a_path(made: Pins, tmp_path: Path, sandbox_id: str) -> None:
    made.release(sandbox_id)
    with pytest.raises(OSError, match="file name"):
        pinned(made, tmp_path, sandbox_id)


def test_a_path_of_somebody_elses_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "pins").mkdir()
    os.chown(tmp_path / "pins", 1234, 1234)
    with pytest.raises(OSError, match="not root"):
        Pins(str(tmp_path / "pins"))._prepare()


def test_a_pin_of_the_whole_tree_does_not_hold_the_others(made: Pins, tmp_path: Path) -> None:
    """Else each would hold twice as many mounts as the one before it."""
    for _ in range(2):
        target = pinned(made, tmp_path, sandbox())
        assert not any(path.startswith(f"{target}/") for path in mounts.mount_points())


def test_identities_are_those_of_the_mounts(made: Pins, tmp_path: Path) -> None:
    placed = [pinned(made, tmp_path, sandbox()) for _ in range(2)]
    status = tmp_path.stat()
    found = identities(os.getpid())
    assert found is not None
    assert found[f"{status.st_dev}:{status.st_ino}"] == len(placed)
    assert identities(2**22 + 1) is None


def test_no_engine_process_where_nobody_listens(tmp_path: Path) -> None:
    assert engine_process(f"unix://{tmp_path}/absent") is None
