"""Runs code in IPython's InteractiveShell: magics, `display`, rich representations and inline figures."""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
import warnings
from typing import Any, Callable, Dict, List, Optional

from IPython.core.displayhook import DisplayHook
from IPython.core.displaypub import DisplayPublisher
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from . import failures, figures
from .bundle import encoded


class CellDisplayHook(DisplayHook):
    """Sends the value of a cell instead of printing it."""

    def write_output_prompt(self) -> None:
        pass

    def write_format_data(self, format_dict: Dict[str, Any], md_dict: object = None) -> None:
        self.shell.show({"type": "result", "count": self.prompt_count, "data": encoded(format_dict)})

    def finish_displayhook(self) -> None:
        pass


class Publisher(DisplayPublisher):
    """Sends what `display` is given."""

    def publish(self, data: Dict[str, Any], metadata: object = None, source: object = None, **more: object) -> None:
        self.shell.show({"type": "display", "data": encoded(data)})

    def clear_output(self, wait: bool = False) -> None:
        pass


class IpythonShell(InteractiveShell):
    """A shell without a terminal and without files of history."""

    displayhook_class = CellDisplayHook
    display_pub_class = Publisher
    system = InteractiveShell.system_raw
    failure: Optional[Dict[str, Any]] = None
    show: Callable[[Dict[str, Any]], None]

    def enable_gui(self, gui: object = None) -> None:
        pass

    def ask_exit(self) -> None:
        raise SystemExit

    def init_history(self) -> None:
        self.config.HistoryManager.enabled = False
        super().init_history()

    def _showtraceback(self, etype: Any, evalue: BaseException, stb: "List[str] | str") -> None:
        lines = stb if isinstance(stb, list) else str(stb).splitlines()
        self.failure = {
            "ename": getattr(etype, "__name__", str(etype)),
            "evalue": failures.message(evalue),
            "traceback": [str(line) for line in lines],
        }


class WithIPython:
    """The interpreter with IPython. `show` takes a message for the agent. Raises where IPython does not start."""

    def __init__(self, show: Callable[[Dict[str, Any]], None]) -> None:
        config = Config()
        config.InteractiveShell.colors = "NoColor"
        config.InteractiveShell.banner1 = ""
        IpythonShell.show = staticmethod(show)
        os.environ.setdefault("IPYTHONDIR", _folder())
        warnings.filterwarnings("ignore", message="To exit: use")
        self.shell = IpythonShell.instance(config=config)
        sys.modules["__main__"] = self.shell.user_module
        self.shell.builtin_trap.activate()
        figures.install(lambda data: show({"type": "display", "data": encoded(data)}), inline=_has_inline())

    @property
    def count(self) -> int:
        return int(self.shell.execution_count)

    def run(self, code: str) -> Optional[Dict[str, Any]]:
        """Runs `code`. Returns None, or the description of what it raised."""
        self.shell.failure = None
        try:
            result = self.shell.run_cell(code, store_history=True)
            figures.flush()
        except BaseException as error:
            return failures.describe(error)
        raised = result.error_before_exec or result.error_in_exec
        if raised is None:
            return None
        return self.shell.failure or failures.describe(raised)


def _folder() -> str:
    """A folder for IPython's profile: its own if there, else one that leaves no trace in the home folder."""
    own = os.path.expanduser("~/.ipython")
    if os.path.isdir(own):
        return own
    return os.path.join(tempfile.gettempdir(), f".ipython-{os.getuid()}")


def _has_inline() -> bool:
    """Looked up, not imported: it would import matplotlib."""
    return importlib.util.find_spec("matplotlib_inline") is not None
