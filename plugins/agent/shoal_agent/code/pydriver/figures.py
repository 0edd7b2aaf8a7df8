"""matplotlib's figures become displays: those that are open when code ends, and all at `pyplot.show()`."""

from __future__ import annotations

import importlib.util
import io
import os
import sys
import types
from importlib.machinery import ModuleSpec
from typing import Any, Callable, Dict, Optional

BACKEND = "_shoal.backend"
Show = Callable[[Dict[str, Any]], None]


class BackendFinder:
    """Chooses the backend when matplotlib is imported. An environment variable would reach child processes too."""

    def __init__(self, choose: Callable[[Any], None]) -> None:
        self.choose = choose

    def find_spec(self, name: str, path: object = None, target: object = None) -> Optional[ModuleSpec]:
        if name != "matplotlib":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            self._wrap(spec.loader)
        return spec

    def _wrap(self, loader: Any) -> None:
        execute = loader.exec_module

        def exec_module(module: types.ModuleType) -> None:
            execute(module)
            self.choose(module)

        loader.exec_module = exec_module


def install(show: Show, *, inline: bool = False) -> None:
    """Arranges for the backend. `show` takes the map of one figure; `inline` takes IPython's backend instead."""
    if os.environ.get("MPLBACKEND"):
        return

    def choose(matplotlib: Any) -> None:
        if inline:
            matplotlib.use("module://matplotlib_inline.backend_inline")
        else:
            sys.modules[BACKEND] = _backend(show)
            matplotlib.use("module://" + BACKEND)

    sys.meta_path.insert(0, BackendFinder(choose))


def _backend(show: Show) -> Any:
    from matplotlib.backend_bases import FigureManagerBase
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    module: Any = types.ModuleType(BACKEND)
    module.FigureCanvas = FigureCanvasAgg
    module.FigureManager = FigureManagerBase
    module.show = lambda *args, **options: _flush(show)
    module.pending = lambda: _flush(show)
    return module


def _flush(show: Show) -> None:
    from matplotlib import pyplot
    from matplotlib._pylab_helpers import Gcf

    try:
        for manager in Gcf.get_all_fig_managers():
            figure = manager.canvas.figure
            image = io.BytesIO()
            figure.canvas.print_figure(image, format="png", bbox_inches="tight", dpi=figure.dpi)
            show({"text/plain": repr(figure), "image/png": image.getvalue()})
    finally:
        pyplot.close("all")


def flush() -> None:
    """Shows and closes the open figures, where the backend is still ours."""
    backend: Any
    pyplot: Any
    backend, pyplot = sys.modules.get(BACKEND), sys.modules.get("matplotlib.pyplot")
    if backend is not None and pyplot is not None and pyplot.get_backend() == "module://" + BACKEND:
        backend.pending()
