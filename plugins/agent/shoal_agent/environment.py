"""The variables that commands, sessions and kernels see: `docs/wire/execd.md` sections 4 and 13."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping

SECRET = frozenset({"EXECD_ACCESS_TOKEN", "EXECD_ACCESS_TOKEN_SHA256"})
"""Never shown to anything that runs in the sandbox."""
OWN = SECRET | {
    "EXECD_ENVS",
    "EXECD_ISOLATION_CONFIG",
    "EXECD_LIFECYCLE_CONFIG",
    "EXECD_RUNTIME_INIT",
    "JUPYTER_HOST",
    "JUPYTER_TOKEN",
    "OPENSANDBOX_LIFECYCLE",
}
"""The agent's own; sessions, PTYs and hooks do not see them, commands see all but the secret."""
MAX_ENV_FILE = 1024 * 1024


class Environment:
    """The agent's variables as they were at its start, and what is laid over them."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.daemon = {name: value for name, value in environ.items() if name not in SECRET}
        """Without the secret; paths of requests expand from it."""
        self.bound: dict[str, str] = {}
        """Variables that late binding brought."""

    def for_commands(self, envs: Mapping[str, str] | None = None) -> dict[str, str]:
        """The agent's, then those of late binding, of the env file as it is now, and `envs`."""
        return {**self.daemon, **self.bound, **self._file(), **(envs or {})}

    def for_sessions(self, envs: Mapping[str, str] | None = None) -> dict[str, str]:
        """The same without the agent's own."""
        seen = {**self.daemon, **self.bound, **self._file()}
        return {**{name: value for name, value in seen.items() if name not in OWN}, **(envs or {})}

    def _file(self) -> dict[str, str]:
        path = self.bound.get("EXECD_ENVS") or self.daemon.get("EXECD_ENVS")
        if not path:
            return {}
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            return {}  # not there yet, or not to be read: no variables of its own
        try:
            data = os.read(descriptor, MAX_ENV_FILE)
        except OSError:
            return {}
        finally:
            os.close(descriptor)
        if not data:
            return {}
        from shoal_agent.envfile import parse  # most sandboxes have none to read, and its patterns take 4 ms

        found = parse(data.decode("utf-8", "surrogateescape"), self.daemon)
        return {name: value for name, value in found.items() if name not in SECRET}


def of_process() -> dict[str, str]:
    """The variables with which this process was started, before Python added any (its coercion of the locale)."""
    try:
        with open("/proc/self/environ", "rb") as file:
            pairs = [entry.partition(b"=") for entry in file.read().split(b"\0") if entry]
    except OSError:
        return dict(os.environ)
    return {_text(name): _text(value) for name, mark, value in pairs if mark}


def with_env_file(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables with `EXECD_ENVS`, the file to which clients append variables of later commands.

    Where nothing names one it is a file of this user in the temporary folder, by the name that the bootstrap uses.
    """
    found = dict(environ)
    if not found.get("EXECD_ENVS"):
        path = f"{found.get('TMPDIR') or '/tmp'}/.opensandbox-env-{os.geteuid()}"  # noqa: S108  # of this user, or not used
        if _is_ours(path):
            found["EXECD_ENVS"] = path
    return found


def _is_ours(path: str) -> bool:
    """Makes the file if it is missing. False for what another user, or no regular file, has in its place."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    except OSError:
        return False
    try:
        status = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    return stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def encoded(environment: Mapping[str, str]) -> dict[bytes, bytes]:
    """As processes get it, whatever the locale."""
    return {
        name.encode("utf-8", "surrogateescape"): value.encode("utf-8", "surrogateescape")
        for name, value in environment.items()
    }
