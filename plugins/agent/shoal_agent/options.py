"""Flags and variables of the program: `docs/wire/execd.md` section 13. A flag beats its variable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

EVERYWHERE = "0.0.0.0"  # noqa: S104  # clients come from outside of the sandbox
PORT = 44772
_DURATION = r"([0-9]*\.?[0-9]+)(ns|us|µs|ms|s|m|h)"
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


class Options(NamedTuple):  # a dataclass would take the agent's start 5 ms
    """How the agent runs."""

    host: str = EVERYWHERE
    port: int = PORT
    log_level: int = 6
    """0 (silent) to 7 (debug), as syslog counts."""
    access_token: str | None = None
    access_token_sha256: str | None = None
    """In its place: the lower-case hex digest of a token that the agent does not know itself."""
    jupyter_host: str | None = None
    jupyter_token: str | None = None
    jupyter_idle_poll: float = 0.1
    """Seconds."""
    graceful_shutdown: float = 1.0
    """Seconds for which running requests may go on after SIGTERM."""
    isolation_config: str | None = None
    runtime_init: bool = False
    """Wait for `POST /internal/init` before anything else is served."""
    init: tuple[str, ...] | None = None
    """The command to run as its parent, as PID 1 does; None if `--init` is not given."""
    startup_status_file: str | None = None
    log_file: str | None = None

    def __repr__(self) -> str:
        return f"Options(port={self.port})"  # two of them are secrets


def duration(text: str) -> float:
    """Seconds of ``1s``, ``200ms``, ``1m30s``. Raises ValueError."""
    import re  # seldom needed, and compiling takes a while

    parts = re.findall(_DURATION, text)
    if text != "0" and (not parts or "".join(number + unit for number, unit in parts) != text):
        raise ValueError(f"{text!r} is no duration such as 1s or 200ms")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def truth(text: str) -> bool:
    """Whether a variable's text switches something on."""
    return text.strip().lower() in ("1", "true", "t", "yes", "on")


def _digest(text: str | None) -> str | None:
    """Raises ValueError for what is no SHA-256, lest an agent be open that should not be."""
    if text is not None and (len(text) != 64 or text.strip("0123456789abcdef")):
        raise ValueError("EXECD_ACCESS_TOKEN_SHA256 must be 64 lower-case hex digits")
    return text


def _port(text: str | None) -> int:
    """Raises ValueError for what is no port."""
    if text is not None and not (text.isdecimal() and 0 < int(text) < 65536):
        raise ValueError("EXECD_LISTEN_PORT must be a port from 1 to 65535")
    return PORT if text is None else int(text)


_FLAGS: dict[str, dict[str, Any]] = {
    "host": {"default": EVERYWHERE, "help": "address to listen on (0.0.0.0)"},
    "port": {"default": None, "type": int, "help": f"port to listen on (EXECD_LISTEN_PORT, {PORT})"},
    "log-level": {"default": 6, "type": int, "help": "0 (silent) to 7 (debug)"},
    "access-token": {"default": None, "help": "token that requests carry (EXECD_ACCESS_TOKEN)"},
    "jupyter-host": {"default": None, "help": "URL of a Jupyter server (JUPYTER_HOST)"},
    "jupyter-token": {"default": None, "help": "its token (JUPYTER_TOKEN)"},
    "jupyter-idle-poll-interval": {"default": None, "type": duration},
    "graceful-shutdown-timeout": {"default": None, "type": duration, "help": "EXECD_API_GRACE_SHUTDOWN (1s)"},
    "isolation-config": {"default": None},
    "lifecycle-startup-status-file": {"default": None},
    "runtime-init": {"default": None, "nargs": "?", "const": "true", "help": "wait for POST /internal/init"},
    "init": {"default": False, "action": "store_true", "help": "run the command after -- and exit with its status"},
}
"""As `argparse` takes them."""


def _read(arguments: Sequence[str]) -> Any:
    """What the flags say, as attributes. Raises SystemExit."""
    if not arguments:
        defaults = {name.replace("-", "_"): more["default"] for name, more in _FLAGS.items()}
        return SimpleNamespace(**defaults, command=[])
    from argparse import ArgumentParser  # its import takes a tenth of the time that the agent takes to start

    parser = ArgumentParser(prog="shoal_agent", description="The agent inside a sandbox.", allow_abbrev=False)
    for name, more in _FLAGS.items():
        parser.add_argument(f"--{name}", f"-{name}", **more)
    parser.add_argument("command", nargs="*")
    return parser.parse_args(arguments)


def parse(arguments: Sequence[str], environ: Mapping[str, str]) -> Options:
    """The options. Raises SystemExit for wrong flags, ValueError for wrong variables."""
    given = _read(arguments)

    def variable(name: str) -> str | None:
        return environ.get(name) or None

    def seconds(flag: float | None, name: str, default: float) -> float:
        if flag is not None:
            return flag
        text = variable(name)
        return default if text is None else duration(text)

    return Options(
        host=given.host,
        port=_port(variable("EXECD_LISTEN_PORT")) if given.port is None else given.port,
        log_level=given.log_level,
        access_token=given.access_token or variable("EXECD_ACCESS_TOKEN"),
        access_token_sha256=_digest(variable("EXECD_ACCESS_TOKEN_SHA256")),
        jupyter_host=given.jupyter_host or variable("JUPYTER_HOST"),
        jupyter_token=given.jupyter_token or variable("JUPYTER_TOKEN"),
        jupyter_idle_poll=seconds(given.jupyter_idle_poll_interval, "EXECD_JUPYTER_IDLE_POLL_INTERVAL", 0.1),
        graceful_shutdown=seconds(given.graceful_shutdown_timeout, "EXECD_API_GRACE_SHUTDOWN", 1.0),
        isolation_config=given.isolation_config or variable("EXECD_ISOLATION_CONFIG"),
        runtime_init=truth(given.runtime_init or environ.get("EXECD_RUNTIME_INIT", "")),
        init=tuple(given.command) if given.init else None,
        startup_status_file=given.lifecycle_startup_status_file,
        log_file=variable("EXECD_LOG_FILE"),
    )
