"""The interpreter of this machine, taken apart: what is mapped when it runs, and what an agent needs of it."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypedDict

from shoal_agent.bundle.elf import Elf

UNWANTED_MODULES: Final = (
    *("_ssl", "_hashlib", "_sqlite3", "_dbm", "_gdbm", "_tkinter", "_curses", "_curses_panel", "readline", "nis"),
    *("_codecs_cn", "_codecs_hk", "_codecs_jp", "_codecs_kr", "_codecs_tw", "_codecs_iso2022", "_multibytecodec"),
    *("audioop", "ossaudiodev", "spwd", "_crypt", "_decimal", "_bz2", "_lzma", "_elementtree", "pyexpat"),
    *("_multiprocessing", "_posixshmem", "_lsprof", "_ctypes_test", "_interpreters", "_zoneinfo", "_uuid"),
)
"""Extension modules that an agent has no use for; those that the standard library can do without, above all."""
UNWANTED_SOURCES: Final = frozenset(
    (
        *("test", "idlelib", "tkinter", "lib2to3", "ensurepip", "venv", "pydoc_data", "turtledemo", "turtle.py"),
        *("unittest", "sqlite3", "curses", "dbm", "xmlrpc", "wsgiref", "msilib", "distutils", "multiprocessing"),
        *("site-packages", "dist-packages", "lib-dynload", "__pycache__", "__phello__", "pydoc.py", "doctest.py"),
        *("imaplib.py", "nntplib.py", "poplib.py", "smtpd.py", "smtplib.py", "ftplib.py", "telnetlib.py", "mailbox.py"),
        *("pickletools.py", "_pyio.py", "aifc.py", "sunau.py", "wave.py", "cgi.py", "cgitb.py", "pyclbr.py", "xml"),
        *("antigravity.py", "this.py", "webbrowser.py", "pdb.py", "profile.py", "pstats.py", "modulefinder.py"),
    )
)
"""Of the standard library, in its folder: what nothing in a sandbox imports."""
_PROBE: Final = Path(__file__).with_name("probe.py")


@dataclass(frozen=True)
class PythonInstallation:
    """One Python.

    Attributes:
        executable: the file itself, no link.
        loader: the dynamic loader that it names.
        version: ``3.11``.
        full_version: as in ``sys.version``, so that another build is another interpreter.
        machine: ``x86_64-linux-gnu``.
        stdlib: the folder of the standard library's sources.
        modules: name → file of each extension module that is wanted.
        libraries: the shared libraries that they and the executable need, without the loader.
    """

    executable: Path
    loader: Path
    version: str
    full_version: str
    machine: str
    stdlib: Path
    modules: dict[str, Path]
    libraries: tuple[Path, ...]

    def sources(self) -> dict[str, Path]:
        """Path within the standard library → its source, sorted."""
        found = {}
        for path in sorted(self.stdlib.rglob("*.py")):
            inside = path.relative_to(self.stdlib)
            wanted = UNWANTED_SOURCES.isdisjoint(inside.parts) and not inside.parts[0].startswith("config-")
            if wanted and not inside.name.startswith("_sysconfigdata"):
                found[str(inside)] = path
        return found


def this_interpreter() -> PythonInstallation:
    """The one that runs this, or that its virtual environment was made of. Raises RuntimeError, NotElf, OSError."""
    executable = Path(getattr(sys, "_base_executable", None) or sys.executable).resolve()
    loader = Elf.read(executable).loader()
    if loader is None:
        raise RuntimeError(f"{executable} is linked statically: an agent needs a Python that loads libraries")
    answer = _ask(executable)
    loader_file = Path(loader).resolve()
    libraries = (Path(path).resolve() for path in answer["libraries"])
    return PythonInstallation(
        executable=executable,
        loader=loader_file,
        version=".".join(str(part) for part in answer["version"]),
        full_version=answer["full_version"],
        machine=answer["machine"],
        stdlib=Path(answer["stdlib"]),
        modules={name: Path(path) for name, path in answer["modules"].items()},
        libraries=tuple(sorted({path for path in libraries if path not in (loader_file, executable)})),
    )


class _Answer(TypedDict):
    """What `probe` prints."""

    version: list[int]
    full_version: str
    machine: str
    stdlib: str
    modules: dict[str, str]
    libraries: list[str]


def _ask(executable: Path) -> _Answer:
    command = [str(executable), "-I", "-S", "-B", str(_PROBE), *UNWANTED_MODULES]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)  # noqa: S603 - our own
    if done.returncode != 0:
        raise RuntimeError(f"{executable} could not be asked what it is made of: {done.stderr.strip()[-500:]}")
    answer: _Answer = json.loads(done.stdout)
    return answer
