"""Calls of components, bounded in time: whatever goes wrong is one line with plugin, component and method."""

from __future__ import annotations

import asyncio
import functools
import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

import structlog

from shoal.errors import ConfigError, InternalError, ShoalError
from shoal.models import codes
from shoal.plugin.components import Part

T = TypeVar("T")
_WIRE: Final = frozenset(code for code in vars(codes).values() if isinstance(code, str))
"""Codes that the wire dictates, some of them without a scope."""
_CODE: Final = re.compile(r"[A-Z0-9_]+::[A-Z0-9_]+")
log = structlog.get_logger("shoal.plugin")

LAST_SECONDS: Final = 1.0
"""How long a call that was cancelled may take to end; one that does not is left behind."""
_left: set[asyncio.Task[object]] = set()


class ComponentFailure(Exception):
    """A call of a component failed, or took too long.

    Attributes:
        reason: for everybody: without the text of an exception that was not made for callers.
    """

    def __init__(self, line: str, reason: str) -> None:
        super().__init__(line)
        self.reason = reason


async def bounded(part: Part, method: str, call: Callable[[], Awaitable[T]], seconds: float) -> T:
    """What one call of a component returns.

    Raises ConfigError as the component does, and ComponentFailure for everything else that leaves the call, SystemExit
    included, and for a call that has not returned after ``seconds``, which is cancelled.
    """
    task = asyncio.get_running_loop().create_task(_outcome(call), name=f"{method} {part.key}")
    try:
        await asyncio.wait({task}, timeout=seconds)
    except asyncio.CancelledError:
        await _cancel(task)
        raise
    if not task.done():
        await _cancel(task)
        late = f"did not return from {method} within {seconds:g} s"
        raise ComponentFailure(f"{part} {late}", f"no answer within {seconds:g} s")
    value, error = task.result()
    if error is None:
        return value  # type: ignore[return-value]  # there is one where nothing was raised
    if isinstance(error, ConfigError):
        raise error
    raise ComponentFailure(f"{part} failed in {method}: {described(error)}", _public(error)) from error


class PluginBug(InternalError):
    """What a plugin raised or answered is its mistake; it is logged, with the plugin's name."""


def ends_this_task(error: BaseException) -> bool:
    """Whether it is KeyboardInterrupt, or the cancellation of this very task; nothing else may end it."""
    task = asyncio.current_task()
    cancelled = isinstance(error, asyncio.CancelledError) and (task is None or task.cancelling() > 0)
    return cancelled or isinstance(error, KeyboardInterrupt)


@contextmanager
def contained(part: Part) -> Iterator[None]:
    """Let only ShoalErrors, and the cancellation of this task, out of a call of a component.

    Anything else is a bug of the plugin: it is logged with its name. SystemExit ends nothing, and the CancelledError of
    a task that the component cancelled itself is no cancellation of this one, which would end without a trace. Raises
    PluginBug for those. A ShoalError whose code is not ``SCOPE::REASON`` goes on as it is, and is logged once.
    """
    try:
        yield
    except ShoalError as error:
        check_code(part, error)
        raise
    except asyncio.CancelledError as error:
        if ends_this_task(error):
            raise
        raise bug(part, error) from None
    except SystemExit as error:
        raise bug(part, error) from None
    except GeneratorExit:
        raise
    except BaseException as error:
        if ends_this_task(error):
            raise
        raise bug(part, error) from error


def check_code(part: Part, error: ShoalError) -> None:
    """Log an error whose code has not the form that clients tell codes by; what it refuses stays refused."""
    if not isinstance(error.code, str) or (error.code not in _WIRE and _CODE.fullmatch(error.code) is None):
        line = f"{part} raised {type(error).__name__} with the code {error.code!r}: a code has the form SCOPE::REASON"
        _tell_once(part.plugin, line)


@functools.lru_cache(maxsize=256)
def _tell_once(plugin: str, line: str) -> None:
    """Log it the first time: whoever sends requests does not fill the log."""
    log.error("a plugin answered wrongly", plugin=plugin, error=line)


def wrong(part: Part, reason: str) -> PluginBug:
    """The error for an answer of a component that cannot be used; logged with the plugin's name."""
    log.error("a plugin answered wrongly", plugin=part.plugin, error=f"{part} {reason}")
    return PluginBug(codes.INTERNAL_ERROR, f"The {part.family} gave an answer that cannot be used.")


def bug(part: Part, error: BaseException) -> PluginBug:
    """The error for what a component raised and must not; logged with the plugin's name."""
    did = "failed in an unforeseen way"
    if isinstance(error, asyncio.CancelledError):
        did = "cancelled its own work"
    elif isinstance(error, SystemExit):
        did = "tried to end the server"
    traceback = error if isinstance(error, Exception) else None
    log.error("a plugin failed", plugin=part.plugin, error=f"{part} {did}: {described(error)}", exc_info=traceback)
    return PluginBug(codes.INTERNAL_ERROR, f"The {part.family} {did}.")


def described(error: BaseException) -> str:
    """An exception on one line: the message of one that was made for callers, else its type and text."""
    text = " ".join(str(error).split())
    if isinstance(error, ShoalError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _public(error: BaseException) -> str:
    return error.message if isinstance(error, ShoalError) else f"failed: {type(error).__name__}"


async def _outcome(call: Callable[[], Awaitable[T]]) -> tuple[T | None, BaseException | None]:
    """What the call returned or raised; raises nothing but this task's own cancellation and KeyboardInterrupt."""
    try:
        return await call(), None
    except BaseException as error:
        if ends_this_task(error):
            raise
        return None, error


async def _cancel(task: asyncio.Task[tuple[T | None, BaseException | None]]) -> None:
    task.cancel()
    await asyncio.wait({task}, timeout=LAST_SECONDS)
    if not task.done():
        _left.add(task)  # the event loop itself keeps only a weak reference
        task.add_done_callback(_left.discard)
