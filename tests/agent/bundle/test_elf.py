"""ELF files are changed in place, or refused."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from shoal_agent.bundle.elf import Elf, NotElf
from shoal_agent.bundle.interpreter import this_interpreter


@pytest.fixture(scope="module")
def program() -> Path:
    return this_interpreter().executable


@pytest.mark.parametrize(
    "content", [b"", b"#!/bin/sh\n", b"\x7fELF\x01\x01" + bytes(60), b"\x7fELF\x02\x02" + bytes(60)]
)
def test_other_files_are_refused(content: bytes) -> None:
    with pytest.raises(NotElf):
        Elf(content)


def test_a_program_without_symbols_runs_with_its_own_library_folder(program: Path, tmp_path: Path) -> None:
    elf = Elf.read(program)
    loader = elf.loader()
    assert loader is not None
    elf.strip()
    elf.search_in("$ORIGIN/own")
    changed = tmp_path / "python"
    changed.write_bytes(elf.content())
    changed.chmod(0o755)
    assert len(elf.content()) <= program.stat().st_size
    tried = subprocess.run(
        [loader, str(changed), "-c", ""], env={"LD_DEBUG": "libs"}, capture_output=True, text=True, check=False
    )
    assert f"{tmp_path}/own" in tried.stderr


def test_search_paths_are_written_once(program: Path) -> None:
    elf = Elf.read(program)
    elf.search_in("$ORIGIN/first")
    once = len(elf.content())
    elf.search_in("$ORIGIN/other")
    assert len(elf.content()) == once
    assert [tag for tag, _ in elf._dynamic()].count(15) == 1


def test_a_loader_whose_path_is_too_long_is_refused(program: Path) -> None:
    with pytest.raises(NotElf, match="no room"):
        Elf.read(program).load_with("/opt/" + "x" * 200)


def test_libraries_tell_the_name_that_they_are_asked_for_by() -> None:
    names = {Elf.read(path).soname() for path in this_interpreter().libraries}
    assert "libc.so.6" in names
