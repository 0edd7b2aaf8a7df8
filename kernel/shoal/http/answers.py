"""How responders answer, and whom."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    from falcon.asgi import Request, Response

    from shoal.plugin.interfaces import Principal
    from shoal.plugin.interfaces.policy import Governed

EXCHANGE: Final = "shoal.exchange"
"""Key of the ASGI scope under which the edge keeps what it knows of a request."""

_encoder = msgspec.json.Encoder()


def answer_bytes(resp: Response, content: bytes) -> None:
    """Answer with JSON that is encoded already."""
    resp.data = content
    resp.content_type = "application/json"


def answer_json(resp: Response, value: Any) -> None:
    """Answer with a value as JSON; a Secret in it is an error, not a leak."""
    answer_bytes(resp, _encoder.encode(value))


def answer_text(resp: Response, content: str) -> None:
    """Answer with plain text."""
    resp.data = content.encode("utf-8", "replace")
    resp.content_type = "text/plain; charset=utf-8"


async def ask_policies(req: Request, body: Any) -> None:
    """Ask the policies about a request whose operation says ``asks``, with its body. Raises what a policy raises."""
    ask = req.scope[EXCHANGE].ask
    if ask is not None:
        await ask(body)


def is_visible(req: Request, record: Governed) -> bool:
    """Whether the policies show a sandbox, snapshot or pool to the caller of a request; for lists."""
    sees = req.scope[EXCHANGE].sees
    return sees is None or bool(sees(record))


def principal_of(req: Request) -> Principal | None:
    """The caller of a request; None where the server asks nobody for a credential."""
    principal: Principal | None = req.scope[EXCHANGE].principal
    return principal
