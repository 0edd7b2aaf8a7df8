"""Logs, events, inspect and summary, for people and for programs (docs/wire/api.md section 13).

With ``scope`` the answer is a JSON descriptor; without it plain text, which is deprecated for logs and events.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from falcon.asgi import Request, Response
from msgspec import UNSET, UnsetType

from shoal.errors import InvalidRequest, NotFound, NotSupported, ShoalError
from shoal.http.answers import answer_json, answer_text
from shoal.http.parse import Query
from shoal.models import codes
from shoal.models.requests import Wire
from shoal.plugin.interfaces import TEXT, LogQuery, Operation, Resources, Route, query_parameter
from shoal.web.resources.sandboxes import ITEM
from shoal.web.seam import DiagnosticsApi, SandboxesApi

log = structlog.get_logger("shoal.web.diagnostics")

STABLE_LOG_LINES = 100
STABLE_EVENT_LINES = 50
_SINCE = re.compile(r"(\d{1,9})([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_UNREADABLE_SINCE = timedelta(minutes=10)
_WIDE_RULE, _RULE = "=" * 72, "-" * 40


class DiagnosticContent(Wire, omit_defaults=False):
    """A diagnostic text and what it is."""

    sandbox_id: str
    kind: str
    scope: str
    content: str
    content_length: int
    truncated: bool
    delivery: str = "inline"
    content_type: str = "text/plain; charset=utf-8"
    warnings: list[str] | UnsetType = UNSET


_TAIL: dict[str, Any] = {"type": "integer", "minimum": 1, "maximum": 10000}
_LIMIT: dict[str, Any] = {"type": "integer", "minimum": 1, "maximum": 500}
_SCOPE = "Asks for the JSON form; without it the answer is plain text, which is deprecated."


class DiagnosticsRoutes(Resources):
    """Logs, events, inspect, summary."""

    name = "diagnostics"

    def __init__(self, sandboxes: SandboxesApi, diagnostics: DiagnosticsApi) -> None:
        self._sandboxes = sandboxes
        self._diagnostics = diagnostics

    def routes(self) -> list[Route]:
        """One for each."""
        return [
            Route(f"{ITEM}/diagnostics/logs", Logs(self._sandboxes, self._diagnostics)),
            Route(f"{ITEM}/diagnostics/events", Events(self._sandboxes, self._diagnostics)),
            Route(f"{ITEM}/diagnostics/inspect", Inspect(self._diagnostics)),
            Route(f"{ITEM}/diagnostics/summary", Summary(self._sandboxes, self._diagnostics)),
        ]


class Logs:
    """``/sandboxes/{sandbox_id}/diagnostics/logs``"""

    def __init__(self, sandboxes: SandboxesApi, diagnostics: DiagnosticsApi) -> None:
        self._sandboxes = sandboxes
        self._diagnostics = diagnostics

    @Operation(
        name="getSandboxLogs",
        summary="Read the output of a sandbox.",
        answers=(DiagnosticContent, TEXT),
        errors=(400, 404, 501),
        headers=("Deprecation",),
        parameters=(
            query_parameter("scope", {"type": "string", "enum": ["container", "all"]}, _SCOPE),
            query_parameter(
                "tail", {**_TAIL, "default": 100}, "Plain text only: number of last lines.", deprecated=True
            ),
            query_parameter(
                "since", {"type": "string"}, "Plain text only: greatest age, as `10m` or `1h`.", deprecated=True
            ),
            query_parameter(
                "container", {"type": "string"}, "Plain text only: name of the container.", deprecated=True
            ),
        ),
    )
    async def on_get(self, req: Request, resp: Response, sandbox_id: str) -> None:
        """The last lines of output."""
        query = Query(req)
        tail = query.integer("tail", 100, ge=1, le=10000)
        query.check()
        scope = _scope(query, ("container", "all"))
        self._sandboxes.entry(sandbox_id)
        if scope is None:
            wanted = LogQuery(tail=tail, since=_since(query.text("since")), container=query.text("container"))
            answer_text(resp, await _asked(self._diagnostics.logs(sandbox_id, wanted), "logs"))
            resp.set_header("Deprecation", "true")
            return
        # One line more than is shown: it says whether there are more.
        content = await _asked(self._diagnostics.logs(sandbox_id, LogQuery(tail=STABLE_LOG_LINES + 1)), "logs")
        lines = content.removesuffix("\n").split("\n")
        shown = "\n".join(lines[-STABLE_LOG_LINES:])
        answer_json(resp, _descriptor(sandbox_id, "logs", scope, shown, truncated=len(lines) > STABLE_LOG_LINES))


class Events:
    """``/sandboxes/{sandbox_id}/diagnostics/events``"""

    def __init__(self, sandboxes: SandboxesApi, diagnostics: DiagnosticsApi) -> None:
        self._sandboxes = sandboxes
        self._diagnostics = diagnostics

    @Operation(
        name="getSandboxEvents",
        summary="Read the events of a sandbox.",
        answers=(DiagnosticContent, TEXT),
        errors=(400, 404, 501),
        headers=("Deprecation",),
        parameters=(
            query_parameter("scope", {"type": "string", "enum": ["runtime", "all"]}, _SCOPE),
            query_parameter(
                "limit", {**_LIMIT, "default": 50}, "Plain text only: number of lines at most.", deprecated=True
            ),
        ),
    )
    async def on_get(self, req: Request, resp: Response, sandbox_id: str) -> None:
        """What befell the sandbox."""
        query = Query(req)
        limit = query.integer("limit", 50, ge=1, le=500)
        query.check()
        scope = _scope(query, ("runtime", "all"))
        self._sandboxes.entry(sandbox_id)
        if scope is None:
            answer_text(resp, await _asked(self._diagnostics.events(sandbox_id, limit), "events"))
            resp.set_header("Deprecation", "true")
            return
        content = await _asked(self._diagnostics.events(sandbox_id, STABLE_EVENT_LINES + 1), "events")
        lines = content.removesuffix("\n").split("\n")
        shown = "\n".join(lines[:STABLE_EVENT_LINES])
        answer_json(resp, _descriptor(sandbox_id, "events", scope, shown, truncated=len(lines) > STABLE_EVENT_LINES))


class Inspect:
    """``/sandboxes/{sandbox_id}/diagnostics/inspect``"""

    def __init__(self, diagnostics: DiagnosticsApi) -> None:
        self._diagnostics = diagnostics

    @Operation(
        name="getSandboxInspect",
        summary="Read how the engine describes a sandbox.",
        answers=(TEXT,),
        errors=(400, 404, 501),
    )
    async def on_get(self, _req: Request, resp: Response, sandbox_id: str) -> None:
        """The sandbox as its engine describes it."""
        answer_text(resp, await _asked(self._diagnostics.inspect(sandbox_id), "inspect"))


class Summary:
    """``/sandboxes/{sandbox_id}/diagnostics/summary``"""

    def __init__(self, sandboxes: SandboxesApi, diagnostics: DiagnosticsApi) -> None:
        self._sandboxes = sandboxes
        self._diagnostics = diagnostics

    @Operation(
        name="getSandboxDiagnosticsSummary",
        summary="Read inspect, events and logs of a sandbox as one text.",
        answers=(TEXT,),
        errors=(404,),
        parameters=(
            query_parameter("tail", {**_TAIL, "default": 50}, "Number of log lines at most."),
            query_parameter("event_limit", {**_LIMIT, "default": 20}, "Number of events at most."),
        ),
    )
    async def on_get(self, req: Request, resp: Response, sandbox_id: str) -> None:
        """Inspect, events and logs on one page (layout: docs/wire/docker.md section 13)."""
        query = Query(req)
        tail = query.integer("tail", 50, ge=1, le=10000)
        event_limit = query.integer("event_limit", 20, ge=1, le=500)
        query.check()
        self._sandboxes.entry(sandbox_id)
        lines = [_WIDE_RULE, "SANDBOX DIAGNOSTICS SUMMARY", f"Sandbox ID: {sandbox_id}", _WIDE_RULE]
        parts: list[tuple[str, Callable[[], Awaitable[str]]]] = [
            ("INSPECT", lambda: self._diagnostics.inspect(sandbox_id)),
            ("EVENTS", lambda: self._diagnostics.events(sandbox_id, event_limit)),
            (f"LOGS (last {tail} lines)", lambda: self._diagnostics.logs(sandbox_id, LogQuery(tail=tail))),
        ]
        for title, ask in parts:
            lines += ["", _RULE, title, _RULE, (await _part(ask, title)).rstrip("\n")]
        answer_text(resp, "\n".join(lines) + "\n")


async def _part(ask: Callable[[], Awaitable[str]], title: str) -> str:
    """One part of the summary, or the line that stands for it. Raises NotFound: the sandbox has gone meanwhile."""
    try:
        return await _asked(ask(), title.split()[0].lower())
    except NotFound:
        raise
    except ShoalError as error:
        return f"[error] {error.message}"
    except Exception:
        log.exception("part of a diagnostics summary failed", part=title)
        return "[error] The server failed in an unforeseen way."


async def _asked(part: Awaitable[str], kind: str) -> str:
    """A runtime's text. Raises NotSupported where the runtime did not implement the method."""
    try:
        return await part
    except NotImplementedError:
        raise NotSupported(codes.API_NOT_SUPPORTED, f"The runtime of this sandbox has no {kind}.") from None


def _scope(query: Query, known: tuple[str, ...]) -> str | None:
    text = query.text("scope")
    if text is None:
        return None
    scope = text.strip().lower()
    if scope not in known:
        raise InvalidRequest(codes.DIAGNOSTICS_SCOPE_UNSUPPORTED, f"scope must be one of {', '.join(known)}.")
    return scope


def _since(text: str | None) -> datetime | None:
    """``N[smhd]`` before now; what cannot be read means ten minutes."""
    if text is None:
        return None
    now = datetime.now(UTC)
    match = _SINCE.fullmatch(text.strip())
    try:
        return now - (timedelta(seconds=int(match[1]) * _SECONDS[match[2]]) if match else _UNREADABLE_SINCE)
    except OverflowError:
        return datetime.min.replace(tzinfo=UTC)


def _descriptor(sandbox_id: str, kind: str, scope: str, content: str, *, truncated: bool) -> DiagnosticContent:
    sources = {"logs": "container", "events": "runtime"}
    return DiagnosticContent(
        sandbox_id=sandbox_id,
        kind=kind,
        scope=scope,
        content=content,
        content_length=len(content.encode("utf-8", "replace")),
        truncated=truncated,
        warnings=[f"The only source of {kind} is {sources[kind]}."] if scope == "all" else UNSET,
    )
