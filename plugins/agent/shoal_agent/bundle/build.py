"""Builds the bundle: a folder that runs the agent in any Linux file system of its machine's architecture.

::

    execd            starts the agent; its first line names the interpreter where runtimes put it
    bootstrap.sh     starts it beside a sandbox's command
    agent/python     the interpreter, started by agent/ld and with the libraries of agent/lib, whatever the image has
    agent/lib/       shared libraries, extension modules, the compiled standard library and the agent itself
    agent/bundle.json    what it was built from, and the digest of everything

The same interpreter and sources give the same bytes: files are compiled with unchecked hashes, in one order, and
every file has one of two modes and no time.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import shoal_agent
from shoal_agent.bundle.elf import Elf
from shoal_agent.bundle.interpreter import PythonInstallation, this_interpreter

PLACE: Final = "/opt/opensandbox"
"""Where a sandbox has the bundle. It runs elsewhere, too, if it is started by `command`."""
FORMAT: Final = 1
"""Counts changes of what a build makes of the same inputs."""
FLAGS: Final = "-ISBXutf8"
"""Isolated, without ``site``, writing no bytecode, in UTF-8 whatever the image's locale."""
PACKAGE: Final = Path(shoal_agent.__file__).parent
NOT_INSIDE: Final = frozenset({"hooks.py", "placement.py", "bundle"})
"""What of this package runs in the server alone."""
AS_TEXT: Final = ("code/pydriver/*.py", "code/driver.js")
"""What the sandbox's own interpreters run: it is placed as it is."""
_COMPILER: Final = Path(__file__).with_name("compiler.py")
_START: Final = f"""#!{PLACE}/agent/python {FLAGS}
import sys
from shoal_agent.main import main
sys.exit(main(sys.argv[1:]))
"""
_MANIFEST: Final = "agent/bundle.json"


def interpreter(folder: Path | str) -> list[str]:
    """The Python of a bundle that lies in ``folder``; a script follows."""
    return [f"{folder}/agent/ld", f"{folder}/agent/python", FLAGS]


def command(folder: Path | str) -> list[str]:
    """What starts the agent of a bundle that lies in ``folder``; its own arguments follow."""
    return [*interpreter(folder), f"{folder}/execd"]


def build(target: Path) -> str:
    """Build the bundle into ``target``, which must not exist or be empty; returns its digest.

    A half-built folder is never seen: it is built beside the target and renamed. Raises OSError, RuntimeError (there
    is no such Python here), NotElf.
    """
    interpreter = this_interpreter()
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as draft:
        folder = Path(draft) / "bundle"
        _place_binaries(interpreter, folder / "agent")
        _place_modules(interpreter, folder / "agent/lib" / f"python{interpreter.version}")
        _place_texts(folder / "agent/lib" / f"python{interpreter.version}")
        _place_entries(folder)
        _equalise(folder)
        digest = digest_of(folder)
        _write(folder / _MANIFEST, _manifest(interpreter, digest))
        _equalise(folder)
        if target.is_dir():
            target.rmdir()
        folder.rename(target)
    return digest


def told_digest(folder: Path) -> str | None:
    """The digest that a bundle had when it was built; None for a folder that is none."""
    try:
        told = json.loads((folder / _MANIFEST).read_bytes())
    except (OSError, ValueError):
        return None
    digest = told.get("digest") if isinstance(told, dict) else None
    return digest if isinstance(digest, str) else None


def inputs() -> str:
    """A digest of what a build depends on, quick to make: the interpreter by name and date, the agent by content."""
    interpreter = this_interpreter()
    found = hashlib.sha256(f"{FORMAT} {interpreter.full_version} {interpreter.machine}".encode())
    for path in (interpreter.executable, interpreter.loader, *interpreter.libraries):
        state = path.stat()
        found.update(f"{path} {state.st_size} {state.st_mtime_ns}".encode())
    for name, path in sorted(_agent_sources().items()):
        found.update(name.encode() + hashlib.sha256(path.read_bytes()).digest())
    for path in (PACKAGE / "bootstrap.sh", *_texts(), *sorted(PACKAGE.glob("bundle/*.py"))):
        found.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    return found.hexdigest()


def digest_of(folder: Path) -> str:
    """``sha256:…`` over the names, modes and contents of every file but the manifest."""
    found = hashlib.sha256()
    for path in _files(folder):
        if path.name != "bundle.json":
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            found.update(f"{path.relative_to(folder)} {path.stat().st_mode & 0o777:o} {content}\n".encode())
    return f"sha256:{found.hexdigest()}"


def _place_binaries(interpreter: PythonInstallation, folder: Path) -> None:
    """The executable, its loader, the libraries and the extension modules, none of which looks outside the folder."""
    program = Elf.read(interpreter.executable)
    program.strip()
    program.search_in("$ORIGIN/lib")
    program.load_with(f"{PLACE}/agent/ld")
    _write(folder / "python", program.content(), executable=True)
    _write(folder / "ld", _stripped(interpreter.loader)[1], executable=True)
    for path in interpreter.libraries:
        name, content = _stripped(path)
        _write(folder / "lib" / name, content)
    for path in interpreter.modules.values():
        _write(folder / f"lib/python{interpreter.version}/lib-dynload" / path.name, _stripped(path)[1])


def _stripped(path: Path) -> tuple[str, bytes]:
    """The name by which a library is asked for, and its content without what is never mapped."""
    library = Elf.read(path)
    library.strip()
    library.forget_search_paths()
    return library.soname() or path.name, library.content()


def _place_modules(interpreter: PythonInstallation, folder: Path) -> None:
    """The standard library and the agent, compiled."""
    sources: Mapping[str, Path] = {**interpreter.sources(), **_agent_sources()}
    lines = [
        "\t".join([str(path), str(folder / Path(name).with_suffix(".pyc")), name])
        for name, path in sorted(sources.items())
    ]
    done = subprocess.run(  # noqa: S603 - our own interpreter
        [str(interpreter.executable), "-sSPB", str(_COMPILER)],  # not -I, which would ignore the seed
        input="\n".join(lines),
        capture_output=True,
        text=True,
        check=False,
        env={**_without_python(os.environ), "PYTHONHASHSEED": "0"},
    )
    if done.returncode != 0:
        raise RuntimeError(f"the bundle could not be compiled: {done.stderr.strip()[-1000:]}")


def _place_texts(folder: Path) -> None:
    for path in _texts():
        _write(folder / PACKAGE.name / path.relative_to(PACKAGE), path.read_bytes())


def _texts() -> list[Path]:
    return sorted(path for pattern in AS_TEXT for path in PACKAGE.glob(pattern))


def _without_python(environ: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environ.items() if not name.startswith("PYTHON")}


def _agent_sources() -> dict[str, Path]:
    found = {}
    texts = set(_texts())
    for path in sorted(PACKAGE.rglob("*.py")):
        inside = path.relative_to(PACKAGE)
        if path not in texts and inside.parts[0] not in NOT_INSIDE:
            found[f"{PACKAGE.name}/{inside}"] = path
    return found


def _place_entries(folder: Path) -> None:
    _write(folder / "execd", _START.encode(), executable=True)
    _write(folder / "bootstrap.sh", (PACKAGE / "bootstrap.sh").read_bytes(), executable=True)


def _manifest(interpreter: PythonInstallation, digest: str) -> bytes:
    told = {"format": FORMAT, "machine": interpreter.machine, "python": interpreter.full_version, "digest": digest}
    return json.dumps(told, indent=1, sort_keys=True).encode() + b"\n"


def _equalise(folder: Path) -> None:
    """One of two modes for every file, no time."""
    for path in sorted(folder.rglob("*"), reverse=True):
        path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        os.utime(path, (0, 0))
    folder.chmod(0o755)
    os.utime(folder, (0, 0))


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def _write(path: Path, content: bytes, *, executable: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(0o755 if executable else 0o644)
