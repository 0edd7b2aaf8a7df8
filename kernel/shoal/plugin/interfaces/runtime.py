"""Runtimes: what makes a workload plan real.

All methods are coroutines on the server's event loop and must not block it: an engine SDK that is synchronous is called
on threads that the runtime bounds. Of the methods that change something (create, delete, pause, resume, apply,
snapshot) the kernel never calls two for one sandbox at once, and never more than `Runtime.concurrency` altogether.
The others may be called at any time.

What a method raises is a ShoalError, with a code of this runtime's: ``{scope}::{REASON}``. ``EngineFailure`` (500) is
for an engine that refuses or breaks, with ``retry_after`` in seconds if the same call may succeed then. ``Unavailable``
(503) is for an engine that is away. The code is the runtime's own word: clients see it, and the part after ``::``
becomes the ``reason`` of the sandbox that failed. ``NotFound`` with ``{scope}::SANDBOX_NOT_FOUND`` is for an id that
the engine does not know.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from socket import socket
from typing import ClassVar, Literal

from msgspec import Struct

from shoal.models.plan import WorkloadPlan
from shoal.models.sandbox import SandboxRecord
from shoal.models.workload import Workload, WorkloadGone
from shoal.plugin.interfaces.agent import Agent
from shoal.plugin.interfaces.component import Component
from shoal.plugin.interfaces.pools import NativePools
from shoal.plugin.interfaces.snapshots import SnapshotCatalogue
from shoal.plugin.interfaces.truth import SharedTruth

Progress = Callable[[str, str], None]
"""``progress(reason, message)``: shows in the status of a Pending sandbox; cheap, and may be called often.

``reason`` is one word for programs, ``PULLING_IMAGE``; ``message`` a sentence for people. Called on the event loop, not
on a thread. It is shown, not stored, and does nothing once the sandbox is Pending no more.
"""


class Capabilities(Struct, kw_only=True, frozen=True):
    """What a runtime can do. What it does not declare here is refused by the kernel before anything is touched.

    An operation (pause, snapshot) that is lacking answers 501; a field of a create request that is lacking answers
    400 ``SANDBOX::INVALID_PARAMETER`` (docs/wire/api.md section 6).

    Attributes:
        pause: `Runtime.pause` and `Runtime.resume` work; the kernel's warm pools need it.
        snapshots: `Runtime.snapshot` and `Runtime.delete_snapshot` work, and plans with a ``snapshot_image``.
        sidecars: ``WorkloadPlan.sidecars`` of a caller.
        network_policy: a networking plugin may add what keeps ``networkPolicy``: sidecars that come first.
        lifecycle_hooks: ``WorkloadPlan.lifecycle``.
        image_auth: registry credentials of a request, ``WorkloadPlan.image_auth``.
        pools: it keeps pools of its own (`Runtime.pools`) and understands ``extensions.poolRef``. For runtimes that
            only can pause, the kernel keeps them.
        secure_access: it keeps ``WorkloadPlan.labels`` with the workload and reports them from the first sight of it,
            so that an access token among them holds.
        signed_endpoints: a gateway may check signed endpoints of its sandboxes: where nothing signs any, asking for one
            is an invalid parameter, and not an API that this runtime lacks (docs/wire/api.md section 8).
        routed: a gateway finds its sandboxes by itself, so that it may be the way in to them.
        certificates: how a sidecar is given certificates: ``path`` of a file on the engine's machine, or ``secret`` of
            a cluster; None for either.
        shared: other servers may reach the same sandboxes, so that what one of them saw is not all that happened.
        volumes: which of ``host``, ``pvc``, ``ossfs`` it can mount.
        platforms: ``os/arch`` pairs a request may ask for; empty accepts none.
    """

    pause: bool = False
    snapshots: bool = False
    pools: bool = False
    sidecars: bool = False
    network_policy: bool = False
    lifecycle_hooks: bool = False
    secure_access: bool = False
    signed_endpoints: bool = False
    image_auth: bool = False
    routed: bool = True
    certificates: Literal["path", "secret"] | None = None
    shared: bool = False
    volumes: frozenset[str] = frozenset()
    platforms: frozenset[str] = frozenset()


class LogQuery(Struct, kw_only=True, frozen=True):
    """Which part of the logs.

    Attributes:
        tail: so many last lines at most. The server asks for 1 to 10000; 0 is no lines at all, never "all of them".
        since: no line that is older (UTC).
        container: the one of several, by the engine's name for it; None is the sandbox's own.
    """

    tail: int = 100
    since: datetime | None = None
    container: str | None = None


class Runtime(Component, ABC):
    """One way to run sandboxes.

    Attributes:
        name: what ``runtime.type`` and ``extensions["runtime"]`` say.
        scope: of the error codes about its sandboxes, the kernel's as well as its own: ``REEF`` gives
            ``REEF::SANDBOX_NOT_FOUND``. Upper case, ``A-Z``, ``0-9`` and ``_``; required.
        capabilities: fixed once `start` has returned.
        concurrency: how many engine operations may run side by side; more wait, first come first served, those that
            refill pools last. It bounds the methods that change something; ``lifecycle.provision_concurrency``,
            where it is set, wins over it. Reads (`list`, `logs`, `inspect`) are not counted.
        resync_interval: seconds between two full comparisons of `list` with the view.
        wrong_state: the machine word of each 409 for what a sandbox's state does not allow; None: the operation's own
            (``SANDBOX_NOT_RUNNING``, ``SANDBOX_NOT_PAUSED``).
        pools: those that the engine keeps by itself; set if ``capabilities.pools``.
        agent: the registered agent that it puts into its sandboxes; None where it uses an image's, or none. The kernel
            makes a token for each sandbox (`WorkloadPlan.labels`, `AGENT_TOKEN_LABEL`).
        agent_starts: `create` returns before the agent listens; requests for its port then wait for it, bounded.
        catalogue: set if the engine lists snapshots by itself, for several servers; known once `start` has returned.
        truth: set if the engine holds expiry and metadata itself, for several servers; `apply` is not called then.
    """

    scope: ClassVar[str]
    capabilities: Capabilities = Capabilities()
    concurrency: int = 8
    resync_interval: float = 60.0
    wrong_state: str | None = None
    pools: NativePools | None = None
    catalogue: SnapshotCatalogue | None = None
    agent: Agent | None = None
    agent_starts: bool = False
    truth: SharedTruth | None = None

    async def check(self, plan: WorkloadPlan) -> None:
        """Refuse what cannot be realised, before anything is durable.

        Called on the request path: look at the plan and at memory, not at the engine. Raises InvalidRequest (400) with
        the API's code, NotSupported, Conflict or Forbidden.
        """

    @abstractmethod
    async def create(self, plan: WorkloadPlan, progress: Progress) -> Workload:
        """Make the plan run and return once it does.

        Called again with the same plan after a crash or a temporary failure: whatever an earlier try left under
        ``plan.id`` is completed or replaced, never doubled. Raises a ShoalError; the kernel then calls `delete`, so a
        half-made workload need not be cleaned up here. Unavailable means that the engine is away: the call is repeated
        until it is back. Cancelled when a removal overtakes it: CancelledError may leave only when nothing of it goes
        on behind (a thread's engine call has returned); `delete` follows. NotFound, where the engine holds the truth,
        means that what was accepted is gone: the sandbox is forgotten.
        """

    @abstractmethod
    async def delete(self, sandbox_id: str) -> None:
        """Remove the workload and everything that `create` made for it. No such workload is success, not an error.

        From its return on, `list` and `watch` show it no more; what the engine still has to do behind that is not
        waited for.

        Repeated every half minute while it raises, and at once when the engine was away and is back.
        """

    async def pause(self, sandbox_id: str) -> Workload:
        """Freeze a running workload; returns it PAUSED, or PAUSING where the engine does it in its own time.

        Of the latter `watch` reports the end: PAUSED, or RUNNING with the reason if it came to nothing. Called only if
        ``capabilities.pause``. Raises a ShoalError; then nothing changed.
        """
        raise NotImplementedError

    async def resume(self, sandbox_id: str) -> Workload:
        """Thaw a paused workload; RUNNING, or RESUMING likewise. Called only if ``capabilities.pause``."""
        raise NotImplementedError

    async def apply(self, record: SandboxRecord) -> None:
        """Told of a renewed expiry or patched metadata before the caller is answered.

        For engines that hold such things themselves (annotations, custom resources); the default needs nothing. Raising
        refuses the change.
        """

    @abstractmethod
    async def list(self) -> list[Workload]:
        """Every workload of ours on the engine, in any phase. Complete or an error: what is missing counts as gone.

        No id stands in it twice. One broken workload is left as it was last seen or reported as failed; it never fails
        the list. Called at start, after each beginning of a watch, every ``resync_interval`` seconds, and when an event
        does not fit; within ``plugins.start_timeout_seconds``. What was made or removed before the call shows in it.
        A workload that the store does not know is taken over if it has an ``adoption``, and left alone if not.
        """

    @abstractmethod
    def watch(self) -> AsyncIterator[Workload | WorkloadGone]:
        """Changes as they happen, from the moment of the call; ends or raises when the stream is lost.

        The kernel then waits (0.2 s, up to 2 s), lists and watches again, so an event may be missed or repeated without
        harm. Each is a whole `Workload`, as `list` would give it, or a `WorkloadGone`. Of one sandbox they come in the
        order in which they happened, and within half a second: an event that comes as late after an operation counts as
        news from before it, and costs a list. Its own operations may show in it, or not. Cancelled when the server
        stops. `shoal.kit.Feed` is the usual body.
        """

    async def connect(self, sandbox_id: str, port: int) -> socket:
        """A stream socket, not blocking, that is connected to a port of a running sandbox; the caller closes it.

        Called only for workloads that are ``tunnelled``, as often as the proxy needs a connection, many at a time. What
        it takes for the first one may take long; the proxy bounds it by ``proxy.connect_timeout_seconds`` and cancels.
        Raises OSError when nothing listens on the port (``ConnectionRefusedError``) or the sandbox is gone, or a
        ShoalError, which becomes the client's answer.
        """
        raise NotImplementedError

    async def logs(self, sandbox_id: str, query: LogQuery) -> str:
        """The workload's output as text, oldest line first; ``(no logs)`` when there is none.

        Raises NotFound for an id that the engine does not know.
        """
        raise NotImplementedError

    async def events(self, sandbox_id: str, limit: int) -> str:
        """What befell the workload, as text of at most ``limit`` lines, the latest ones. Raises likewise."""
        raise NotImplementedError

    async def inspect(self, sandbox_id: str) -> str:
        """The workload as the engine describes it, as text; secrets masked (`shoal.kit.mask`). Raises likewise."""
        raise NotImplementedError

    async def check_snapshot(self, sandbox_id: str) -> None:
        """Refuse to capture a running sandbox, before anything is durable; the default lets every one pass.

        Called only if ``capabilities.snapshots``. Raises Conflict ``SNAPSHOT::RUNTIME_PREFLIGHT_FAILED`` or
        ``SNAPSHOT::UNSUPPORTED_RUNTIME``.
        """

    async def snapshot(self, sandbox_id: str, snapshot_id: str) -> str:
        """Capture a running sandbox; returns the reference that a later plan carries as ``snapshot_image``.

        Called only if ``capabilities.snapshots``; repeated with the same id after a crash.
        """
        raise NotImplementedError

    async def delete_snapshot(self, snapshot_id: str, image: str) -> None:
        """Remove a snapshot's content; absent is success. Raises Conflict if a sandbox still uses it."""
        raise NotImplementedError
