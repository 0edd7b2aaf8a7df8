"""Runs code in one namespace that lasts, with the value of the last expression."""

from __future__ import annotations
import __future__

import ast
import builtins
import inspect
import linecache
import sys
import types
from typing import TYPE_CHECKING, Any, Callable, Dict, Optional

from . import failures, figures
from .bundle import bundle, encoded

if TYPE_CHECKING:
    import asyncio

FEATURES = sum(getattr(__future__, name).compiler_flag for name in __future__.all_feature_names)


class Plain:
    """The interpreter without IPython. `show` takes a message for the agent."""

    def __init__(self, show: Callable[[Dict[str, Any]], None]) -> None:
        self.show = show
        self.count = 0
        self.flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        self.loop: "Optional[asyncio.AbstractEventLoop]" = None
        self.module: Any = types.ModuleType("__main__")
        vars(self.module)["__builtins__"] = builtins
        sys.modules["__main__"] = self.module
        vars(builtins)["display"] = self.display
        figures.install(self.publish)

    def run(self, code: str) -> Optional[Dict[str, Any]]:
        """Runs `code`. Returns None, or the description of what it raised."""
        self.count += 1
        name = f"{failures.CELL}{self.count}>"
        linecache.cache[name] = (len(code), None, code.splitlines(True), name)
        try:
            value = self._execute(code, name)
            if value is not None and not code.rstrip().endswith(";"):
                self.module._ = value
                self.show({"type": "result", "count": self.count, "data": bundle(value)})
            figures.flush()
        except BaseException as error:
            sys.last_type, sys.last_value = type(error), error
            sys.last_traceback = failures.trimmed(error.__traceback__)
            return failures.describe(error)
        return None

    def _execute(self, code: str, name: str) -> object:
        tree = compile(code, name, "exec", self.flags | ast.PyCF_ONLY_AST, dont_inherit=True)
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        self._evaluate(compile(tree, name, "exec", self.flags, dont_inherit=True))
        if last is None:
            return None
        return self._evaluate(compile(ast.Expression(last.value), name, "eval", self.flags, dont_inherit=True))

    def _evaluate(self, code: types.CodeType) -> object:
        self.flags |= code.co_flags & FEATURES
        if not code.co_flags & inspect.CO_COROUTINE:
            return eval(code, self.module.__dict__)  # noqa: S307  # that is what it is for
        return self._wait(types.FunctionType(code, self.module.__dict__)())

    def _wait(self, coroutine: Any) -> object:
        """Runs an `await` at top level on a loop that lasts as the namespace does."""
        import asyncio

        if self.loop is None or self.loop.is_closed():
            self.loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self.loop)
        task = self.loop.create_task(coroutine)
        try:
            return self.loop.run_until_complete(task)
        except KeyboardInterrupt:
            task.cancel()
            self.loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
            raise

    def display(self, *values: Any, raw: bool = False, **ignored: object) -> None:
        """Shows `values`; with `raw`, maps from media type to representation."""
        for value in values:
            self.publish(value if raw else bundle(value))

    def publish(self, data: Dict[str, Any]) -> None:
        """Shows the map `data`."""
        self.show({"type": "display", "data": encoded(data)})
