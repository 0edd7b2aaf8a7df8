"""Asks an interpreter what it is made of. Run by that interpreter, isolated and without site: prints one JSON object.

What the loader mapped for the modules of the list is what they need elsewhere, whichever way it was found.
"""

from __future__ import annotations

import importlib
import json
import sys
import sysconfig
from contextlib import suppress
from pathlib import Path


def main() -> None:
    """Arguments: names of extension modules that are not wanted."""
    unwanted = set(sys.argv[1:])
    sys.modules.update(dict.fromkeys(unwanted))  # type: ignore[arg-type]  # None: importing it fails, as it will there
    folder = Path(sysconfig.get_path("platstdlib")) / "lib-dynload"
    modules = {path.name.partition(".")[0]: str(path) for path in sorted(folder.glob("*.so"))}
    found = {}
    for name, path in modules.items():
        if name not in unwanted and not name.startswith(("_test", "_xx", "xx")):
            with suppress(ImportError):
                importlib.import_module(name)
                found[name] = path
    _look_up_names()
    answer = {
        "version": list(sys.version_info[:2]),
        "full_version": sys.version,
        "machine": sysconfig.get_config_var("MULTIARCH") or sysconfig.get_platform(),
        "stdlib": sysconfig.get_path("stdlib"),
        "modules": found,
        "libraries": sorted(_mapped() - set(modules.values())),
    }
    sys.stdout.write(json.dumps(answer))


def _look_up_names() -> None:
    """So that what the C library loads for users and hosts is mapped, too."""
    import pwd
    import socket

    with suppress(KeyError):
        pwd.getpwnam("root")
    with suppress(OSError):
        socket.getaddrinfo("localhost", 80)


def _mapped() -> set[str]:
    """Shared objects of this process."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    paths = {line.split(maxsplit=5)[5] for line in lines if line.count("/") > 1}
    return {path for path in paths if ".so" in Path(path).name}


if __name__ == "__main__":
    main()
