"""Resources: routes of the HTTP API. Each responder is declared once, for the router and for the OpenAPI document."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar

from msgspec import Struct

from shoal.plugin.interfaces.component import Component

F = TypeVar("F", bound=Callable[..., Any])

METHODS: Final = ("get", "post", "put", "patch", "delete")
TEXT: Final = "text"
"""In `Operation.answers`: plain text."""

_DECLARATION: Final = "__shoal_operation__"


class Operation(Struct, kw_only=True, frozen=True):
    """One method of one path, as a decorator of the Falcon responder (``on_get``, ``on_post``, …) that serves it.

    A responder without one works, with the scope of its method, and is left out of the OpenAPI document.

    Attributes:
        name: the operation's id, unique: ``createPool``.
        summary: one sentence for users.
        scope: what a caller's credential must hold (`Principal.scopes`); None for ``read`` with GET, else ``write``.
        status: of a success.
        answers: of a success: a type, `TEXT` for plain text, nothing for an empty body; several where it varies.
        errors: statuses of failures, besides those that every operation may have.
        error_bodies: type of a failure's body by status, where it is not the usual ``code`` and ``message``.
        parameters: of query and headers, as the OpenAPI document has them (`query_parameter`).
        body: type of the request's body; None for none.
        body_required: whether it must be there.
        example: a body that the server accepts, where the schema alone does not lead to one.
        headers: names of headers of a success.
        asks: the responder itself asks the policies, with the body, by `shoal.http.ask_policies`, before it does
            anything; where it forgets to, the answer is a 500. Others are asked about before the responder runs.
        creates: the path parameter of other operations that the answer holds as ``id``.
    """

    name: str
    summary: str
    scope: str | None = None
    status: int = 200
    answers: tuple[Any, ...] = ()
    errors: tuple[int, ...] = ()
    error_bodies: Mapping[int, Any] = {}
    parameters: tuple[dict[str, Any], ...] = ()
    body: Any = None
    body_required: bool = True
    example: dict[str, Any] | None = None
    headers: tuple[str, ...] = ()
    asks: bool = False
    creates: str | None = None

    def __call__(self, responder: F) -> F:
        """Declare a responder."""
        setattr(responder, _DECLARATION, self)
        return responder


class Route(Struct, frozen=True):
    """One path and the Falcon resource that serves it.

    Attributes:
        path: a URI template of Falcon: ``/notes/{note_id}``. It is served bare and below ``/v1``.
        resource: an object with responders, which are coroutines of Falcon's ASGI flavour. They raise the exceptions
            of `shoal.errors` for what a caller can cause.
        public: open to everybody, no authenticator is asked; such a path has no parameters, and is served bare only.
        parameters: text of each path parameter, for the OpenAPI document.
    """

    path: str
    resource: object
    public: bool = False
    parameters: Mapping[str, str] = {}

    def responders(self) -> Iterator[tuple[str, Operation | None]]:
        """Each method that the resource serves, in lower case, with its declaration."""
        for method in METHODS:
            responder = getattr(self.resource, f"on_{method}", None)
            if responder is not None:
                yield method, getattr(responder, _DECLARATION, None)


class Resources(Component, ABC):
    """A group of routes that belong together."""

    @abstractmethod
    def routes(self) -> Sequence[Route]:
        """The routes; asked once, before `start`. No two groups have one path, nor the id of one operation."""


def query_parameter(name: str, schema: dict[str, Any], description: str, **more: Any) -> dict[str, Any]:
    """An optional query parameter for `Operation.parameters`."""
    return {"name": name, "in": "query", "required": False, "schema": schema, "description": description, **more}
