"""Modules of the standard library that asyncio imports and that an agent needs later, or never.

Half of the time that an agent takes to start would be theirs. `import_asyncio` puts a stand-in in the place of each,
which becomes the module itself when a name in it is looked up.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import reload
from types import ModuleType
from typing import Any

_IS_COROUTINE = 0x80
"""The flag of a function's code, as `inspect` has it."""


class _Later(ModuleType):
    """A module that is loaded with the first name that it does not hold."""

    is_package = False
    loading = False

    def __getattr__(self, name: str) -> Any:
        if self.loading or (name.startswith("__") and not (name == "__path__" and self.is_package)):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        load(self.__name__)
        return getattr(self, name)


def load(name: str) -> None:
    """Makes the stand-in what it stands for; does nothing for a module that is none.

    There is no lock, and no need of one: executors are what begins threads, and their module is loaded last of all.
    """
    module = sys.modules.get(name)
    if not isinstance(module, _Later):
        return
    if name == _THREADS:
        for other in [*_STANDING_IN]:
            if other != name:
                load(other)
    module.loading = True
    reload(module)
    ModuleType.__setattr__(module, "__class__", ModuleType)
    del module.__dict__["loading"], module.__dict__["is_package"]
    _STANDING_IN.remove(name)


_STANDING_IN: list[str] = []
_THREADS = "concurrent.futures"


def _stand_in(name: str, *, package: bool = False, **known: Any) -> None:
    """Unless the module is there. `known`: what asyncio looks up while it is imported, or all the time."""
    if name in sys.modules:
        return
    module = sys.modules[name] = _Later(name)
    module.__dict__.update(known, is_package=package)
    _STANDING_IN.append(name)
    parent, _, child = name.rpartition(".")
    if parent in sys.modules:
        setattr(sys.modules[parent], child, module)


def import_asyncio() -> None:
    """Imports it without what stands in until it is needed, and without OpenSSL: 4.5 MB that nothing here needs."""
    import concurrent  # noqa: F401  # the parent of one, and empty

    _stand_in("logging", package=True, DEBUG=10)
    _stand_in("asyncio.log", logger=_Logger())
    _stand_in("inspect", iscoroutinefunction=_is_coroutine_function)
    _stand_in("traceback", extract_stack=_on("traceback", "extract_stack"))
    _stand_in("subprocess", PIPE=-1, STDOUT=-2, DEVNULL=-3)
    _stand_in("json", package=True)
    for name in ("linecache", "asyncio.sslproto", "asyncio.staggered"):
        _stand_in(name)
    wait = {name: name for name in ("FIRST_COMPLETED", "FIRST_EXCEPTION", "ALL_COMPLETED")}
    _stand_in(_THREADS, package=True, **wait)
    sys.modules.setdefault("ssl", None)  # type: ignore[arg-type]  # asyncio imports it if it can
    import asyncio  # noqa: F401

    if sys.modules["ssl"] is None:
        del sys.modules["ssl"]


class _Logger:
    """asyncio's, which it takes at its import and hardly ever writes to."""

    def __getattr__(self, name: str) -> Any:
        import logging

        return getattr(logging.getLogger("asyncio"), name)


def _on(module: str, name: str) -> Callable[..., Any]:
    """A function of a module that is loaded when it is called: what C code holds from its own import on."""

    def call(*values: Any, **more: Any) -> Any:
        load(module)
        return getattr(sys.modules[module], name)(*values, **more)

    return call


def _is_coroutine_function(function: object) -> bool:
    """`inspect.iscoroutinefunction`, which asyncio asks of each callback of a signal."""
    while (inner := getattr(function, "__func__", None) or getattr(function, "func", None)) is not None:
        function = inner  # of a method, or a partial
    code = getattr(function, "__code__", None)
    return code is not None and bool(code.co_flags & _IS_COROUTINE)
