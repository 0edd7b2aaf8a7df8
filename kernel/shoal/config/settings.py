"""The sections that the kernel itself owns (docs/wire/api.md section 19); every other section belongs to a plugin.

Numbers and booleans may be quoted, ``~`` is expanded in paths (not in log paths), and an unknown key is an error.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, Struct, field

Positive = Annotated[int, Meta(ge=1)]
NotNegative = Annotated[int, Meta(ge=0)]
Port = Annotated[int, Meta(ge=1, le=65535)]
Text = Annotated[str, Meta(min_length=1)]


class Section(Struct, kw_only=True, forbid_unknown_fields=True):
    """Base of every configuration section, the plugins' too."""


class ServerSettings(Section):
    """``[server]``: the port, and how clients see it."""

    host: Text = "0.0.0.0"  # noqa: S104 - opensandbox-server's default; the open-start guard refuses it without a key
    port: Port = 8080
    eip: str | None = None
    """How clients reach this server in endpoints that it proxies itself.

    Host[:port][/path]; unset = the request's Host.
    """
    api_key: str | None = field(default=None)
    """The single-tenant key; read by the authentication plugin, kept here because opensandbox-server has it here."""
    max_sandbox_timeout_seconds: Annotated[int, Meta(ge=60)] | None = None
    """Upper bound of a create's ``timeout``, in seconds; renewals are not bound by it."""
    max_body_bytes: Positive = 8 * 1024 * 1024
    """Largest body of a control-plane request; proxied bodies are streamed and not bounded. An addition of shoal."""
    max_head_bytes: Annotated[int, Meta(ge=1024)] = 65536
    """Of a request's head; of a body's trailers, and of a line between its chunks, as well. An addition of shoal."""
    max_head_fields: Annotated[int, Meta(ge=16)] = 200
    """Header fields of a request, and trailers of a body. An addition of shoal."""
    timeout_head: Annotated[float, Meta(gt=0)] = 20.0
    """From a connection's start, or from a head's first byte on a kept one, to the head's end. An addition of shoal."""
    timeout_body: Annotated[float, Meta(gt=0)] = 30.0
    """Longest silence within a body that is waited for. An addition of shoal."""
    timeout_send: Annotated[float, Meta(gt=0)] = 60.0
    """Longest time in which a client takes nothing of an answer. An addition of shoal."""
    timeout_keep_alive: Positive = 30
    timeout_graceful_shutdown: Positive | None = 5
    limit_concurrency: NotNegative | None = 1024
    """Requests in flight before 503; 0 = no limit."""
    limit_connections: NotNegative | None = None
    """Open at once; None = half of the descriptors that the process may open; 0 = no limit. An addition of shoal."""
    limit_address_share: Annotated[float, Meta(gt=0, le=1)] = 0.5
    """Part of both limits that one address may hold; 1 = all. An addition of shoal."""
    backlog: Positive = 2048
    thread_pool_size: Positive = 200
    loop: Literal["auto", "uvloop", "asyncio"] = "auto"
    http: Literal["auto", "httptools", "h11"] = "auto"

    def __repr__(self) -> str:
        return f"ServerSettings(host={self.host!r}, port={self.port})"


class ProxySettings(Section):
    """``[proxy]``: requests that go on to a sandbox. Times in seconds."""

    resolve_internal: bool = True
    """True: reach the sandbox at its internal address; False: at the public one."""
    connect_timeout_seconds: Annotated[float, Meta(gt=0)] = 10.0
    read_timeout_seconds: Annotated[float, Meta(ge=0)] = 0.0
    """Longest silence of an upstream in mid-answer; 0 = none, so that event streams may idle.

    With 0, an answer that states its length still has ``response_timeout_seconds`` for each piece.
    """
    response_timeout_seconds: Annotated[float, Meta(gt=0)] = 180.0
    """Longest wait for the first byte of an answer after the request was sent."""
    max_connections_per_sandbox: Positive = 256
    idle_connection_seconds: Annotated[float, Meta(ge=0)] = 30.0
    """How long an unused upstream connection is kept for reuse."""
    max_websockets: Positive = 4096
    """Open at once, of all sandboxes; more are closed with 1013. They do not count for ``server.limit_concurrency``."""
    websocket_max_message_bytes: NotNegative = 16 * 1024 * 1024
    """Of a client's message, as it is sent; 0 = no limit. The other direction has none."""
    websocket_ping_seconds: Annotated[float, Meta(ge=0)] = 20.0
    """Between two pings of each side; who is silent from one to the next is dropped. 0 = none."""


class LogSettings(Section):
    """``[log]``: application and access lines."""

    level: Annotated[str, Meta(min_length=3)] = "INFO"
    format: Literal["auto", "console", "json"] = "auto"
    """auto = readable on a terminal, JSON lines otherwise. An addition of shoal."""
    access: bool = True
    """One line a request. An addition of shoal."""
    file_enabled: bool = False
    file_path: str | None = None
    access_file_path: str | None = None
    file_max_bytes: Positive = 104857600
    file_backup_count: NotNegative = 5

    def __post_init__(self) -> None:
        """Raise ValueError for a level that `logging` does not know."""
        if self.level.upper() not in logging.getLevelNamesMapping():
            raise ValueError("level must be a level of Python's logging: DEBUG, INFO, WARNING, ERROR or CRITICAL")


DEFAULT_AGENT = "builtin"
NO_AGENT = "none"


class RuntimeSettings(Section):
    """``[runtime]``: which runtime is the default, and what every runtime shares."""

    type: Text | None = None
    """Name of the default runtime; None = the only one that the enabled plugins register."""
    execd_image: Text | None = None
    """What container runtimes put into sandboxes: the name of an agent that a plugin provides, or of an image.

    ``none`` is nothing; unset is `DEFAULT_AGENT`, if an enabled plugin provides it.
    """
    execd_run_as_init: bool = False


class StorageSettings(Section):
    """``[storage]``: what volumes may be."""

    allowed_host_paths: list[str] = []
    """Prefixes for ``host`` volumes; an empty list refuses them all."""
    volume_default_size: str = "1Gi"
    ossfs_mount_root: str = "/mnt/ossfs"


class StoreSettings(Section):
    """``[store]``: the durable store. Each type but ``sqlite`` needs a plugin of somebody else's that provides it."""

    type: Text = "sqlite"
    """Name of a store that an enabled plugin registers."""
    path: Text = "~/.opensandbox/opensandbox.db"
    postgresql: dict[str, str | int | float] = {}

    @property
    def file(self) -> Path:
        """The SQLite file, ``~`` expanded."""
        return Path(self.path).expanduser()

    @property
    def keys_dir(self) -> Path:
        """Where plugins keep secrets that they made themselves; a runtime on this machine hides it from sandboxes."""
        return self.file.parent / "keys"

    def __repr__(self) -> str:
        return f"StoreSettings(type={self.type!r}, path={self.path!r})"  # a DSN holds a password


class LifecycleSettings(Section):
    """``[lifecycle]``: how sandboxes live and end. An addition of shoal; times in seconds."""

    endpoint_wait_seconds: Annotated[float, Meta(ge=0, le=600)] = 20.0
    """How long an endpoint or a proxied request waits for a Pending sandbox; below the SDK's request time-out of 30."""
    fresh_read_wait_seconds: Annotated[float, Meta(ge=0, le=25)] = 5.0
    """How long after its create a read of a sandbox waits for it to run, unless it is known that this takes longer."""
    agent_wait_seconds: Annotated[float, Meta(ge=0, le=600)] = 10.0
    """How long after a sandbox's start its agent may take until it listens; requests for its port wait meanwhile."""
    wait_limit_seconds: Annotated[float, Meta(ge=0, le=3600)] = 300.0
    """Upper bound of ``timeout`` in ``GET /sandboxes/{id}?wait=``."""
    pending_failure_ttl_seconds: Positive = 3600
    """How long a create that failed stays readable as Failed."""
    idempotency_ttl_seconds: Positive = 86400
    """How long an Idempotency-Key is remembered."""
    provision_concurrency: Positive | None = None
    """Engine operations side by side, for each runtime; None = what the runtime suggests."""
    pool_settle_seconds: Annotated[float, Meta(ge=0, le=600)] = 2.0
    """How long a member of a warm pool runs before it is frozen, so that what it starts is up when it is taken."""
    provision_attempts: Positive = 3
    """Tries of one create whose failures the runtime calls temporary."""


class PluginsSettings(Section):
    """``[plugins]``: which plugins are enabled, and how long they may take. Times in seconds."""

    enabled: list[str] | None = None
    """Names of entry points; None = what follows from the rest of the file (`shoal plugins` shows it)."""
    start_timeout_seconds: Annotated[float, Meta(gt=0)] = 90.0
    """How long a component's ``start``, and a runtime's ``list``, may take."""
    stop_timeout_seconds: Annotated[float, Meta(gt=0)] = 10.0
    """How long a component's ``stop`` may take."""


class Settings(Struct, kw_only=True):
    """All of the kernel's sections."""

    server: ServerSettings = field(default_factory=ServerSettings)
    proxy: ProxySettings = field(default_factory=ProxySettings)
    log: LogSettings = field(default_factory=LogSettings)
    runtime: RuntimeSettings = field(default_factory=RuntimeSettings)
    storage: StorageSettings = field(default_factory=StorageSettings)
    store: StoreSettings = field(default_factory=StoreSettings)
    lifecycle: LifecycleSettings = field(default_factory=LifecycleSettings)
    plugins: PluginsSettings = field(default_factory=PluginsSettings)
