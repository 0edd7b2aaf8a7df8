"""What the engine says of a sandbox, as text for people (docs/wire/docker.md section 13)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from shoal.errors import InvalidRequest, NotFound
from shoal.kit import mask, mask_all, secret_values
from shoal.models import codes
from shoal.plugin.interfaces import LogQuery
from shoal_docker import labels
from shoal_docker.census import Census
from shoal_docker.engine import Engine, EngineError
from shoal_docker.observe import Family, Summary, labels_of, name_of

NO_LOGS: Final = "(no logs)"
NOTHING_NOTABLE: Final = "(no notable events)"
_MIB: Final = 1024 * 1024
_HEALTH_OUTPUT: Final = 200
_FEWEST_LINES: Final = 3


class ContainerDiagnostics:
    """Asks the engine afresh each time."""

    def __init__(self, engine: Engine, census: Census) -> None:
        self._engine = engine
        self._census = census

    async def logs(self, sandbox_id: str, query: LogQuery) -> str:
        """Both streams merged, with the engine's time stamps. Raises NotFound, EngineFailure and InvalidRequest."""
        container = await self._container(sandbox_id, query.container)
        options: dict[str, Any] = {"stdout": True, "stderr": True, "timestamps": True, "tail": query.tail}
        if query.since is not None:
            options["since"] = query.since.timestamp()
        try:
            output: bytes = await self._engine.call("logs", container["Id"], **options)
        except EngineError as error:
            raise _failure(error) from None
        return output.decode(errors="replace") or NO_LOGS

    async def events(self, sandbox_id: str, limit: int) -> str:
        """What befell its container, at most ``limit`` lines."""
        return "\n".join(_events(await self._inspected(sandbox_id))[:limit])

    async def inspect(self, sandbox_id: str) -> str:
        """How the engine describes its container, secrets masked."""
        return "\n".join(_inspection(await self._inspected(sandbox_id)))

    async def _inspected(self, sandbox_id: str) -> dict[str, Any]:
        container = await self._container(sandbox_id, None)
        try:
            found: dict[str, Any] = await self._engine.call("inspect_container", container["Id"])
        except EngineError as error:
            raise _failure(error) from None
        return found

    async def _container(self, sandbox_id: str, name: str | None) -> Summary:
        """The sandbox's own container, or one of its sidecars by name."""
        try:
            family = await self._census.one(sandbox_id)
        except EngineError as error:
            raise _failure(error) from None
        if family.main is None:
            raise NotFound("DOCKER::SANDBOX_NOT_FOUND", "The engine has no container of this sandbox.")
        if name in (None, "", "sandbox") or not family.sidecars:
            return family.main  # where there is one container, it is the one that is meant
        return _sidecar(family, str(name))


def _sidecar(family: Family, name: str) -> Summary:
    named = {labels_of(each).get(labels.SIDECAR_NAME) or _short_name(family.id, each): each for each in family.sidecars}
    if name not in named:
        there = ", ".join(["sandbox", *sorted(named)])
        raise InvalidRequest(codes.INVALID_PARAMETER, f"The sandbox has no such container; it has: {there}.")
    return named[name]


def _short_name(sandbox_id: str, sidecar: Summary) -> str:
    return name_of(sidecar).removeprefix("sandbox-").removesuffix(f"-{sandbox_id}")


def _failure(error: EngineError) -> Exception:
    if error.status == 404:
        return NotFound("DOCKER::SANDBOX_NOT_FOUND", "The engine has no container of this sandbox.")
    return error.failure("DOCKER::SANDBOX_QUERY_FAILED", "The engine could not be asked about the sandbox")


def _row(name: str, value: object) -> str:
    """Values start at column 17."""
    return f"{name + ':':<16}{value}"


def _inspection(found: Mapping[str, Any]) -> list[str]:
    state, config, host = found.get("State") or {}, found.get("Config") or {}, found.get("HostConfig") or {}
    bears: dict[str, str] = config.get("Labels") or {}
    env = [(key, value) for key, _, value in (str(entry).partition("=") for entry in config.get("Env") or [])]
    hidden = secret_values([*env, *bears.items()])
    lines = [
        _row("Container ID", str(found.get("Id", ""))[:12]),
        _row("Name", str(found.get("Name", "")).lstrip("/")),
        _row("Image", config.get("Image") or found.get("Image") or ""),
        _row("Status", state.get("Status", "")),
        _row("Running", state.get("Running", False)),
        _row("Paused", state.get("Paused", False)),
        _row("OOMKilled", state.get("OOMKilled", False)),
        _row("Exit Code", state.get("ExitCode", 0)),
        _row("Started At", state.get("StartedAt", "")),
        _row("Finished At", state.get("FinishedAt", "")),
        *([_row("Error", state["Error"])] if state.get("Error") else []),
        *_block("Resources", _resources(host)),
        *_block("Network", _networks(found)),
        *_block("Ports", _ports(found)),
        *_block("Labels", [f"{key}={mask(key, bears[key])}" for key in sorted(bears)]),
        *_block("Environment", [f"{key}={mask(key, value)}" for key, value in env]),
    ]
    return [mask_all(line, hidden) for line in lines]


def _block(title: str, rows: Iterable[str]) -> list[str]:
    return ["", f"{title}:", *(f"  {row}" for row in rows)]


def _resources(host: Mapping[str, Any]) -> list[str]:
    rows = []
    if host.get("NanoCpus"):
        rows.append(f"{'CPU:':<14}{host['NanoCpus'] / 1e9:.2f} cores")
    if host.get("Memory"):
        rows.append(f"{'Memory:':<14}{host['Memory'] // _MIB} MiB")
    if host.get("PidsLimit"):
        rows.append(f"{'PIDs Limit:':<14}{host['PidsLimit']}")
    return rows


def _networks(found: Mapping[str, Any]) -> list[str]:
    networks = (found.get("NetworkSettings") or {}).get("Networks") or {}
    return [f"{name}: {(network or {}).get('IPAddress') or ''}".rstrip() for name, network in sorted(networks.items())]


def _ports(found: Mapping[str, Any]) -> list[str]:
    rows = []
    for port, bound in sorted(((found.get("NetworkSettings") or {}).get("Ports") or {}).items()):
        for each in bound or [None]:
            where = "(not bound)" if each is None else f"{each.get('HostIp', '')}:{each.get('HostPort', '')}"
            rows.append(f"{port} -> {where}")
    return rows


def _events(found: Mapping[str, Any]) -> list[str]:
    state = found.get("State") or {}
    lines = [
        _row("Container", f"{str(found.get('Id', ''))[:12]} ({str(found.get('Name', '')).lstrip('/')})"),
        _row("Status", state.get("Status", "")),
        _row("Created", found.get("Created", "")),
    ]
    for name, key in (("Started", "StartedAt"), ("Finished", "FinishedAt")):
        if not str(state.get(key) or "0001").startswith("0001"):
            lines.append(_row(name, state[key]))
    told = _notable(state)
    env = (str(entry).partition("=") for entry in (found.get("Config") or {}).get("Env") or [])
    hidden = secret_values([(key, value) for key, _, value in env])
    told = [mask_all(line, hidden) for line in told]
    lines += told
    return lines if len(lines) > _FEWEST_LINES else [*lines, NOTHING_NOTABLE]


def _notable(state: Mapping[str, Any]) -> list[str]:
    told = []
    if state.get("OOMKilled"):
        told.append(_row("Event", "the container ran out of memory"))
    if state.get("ExitCode"):
        told.append(_row("Event", f"exit code {state['ExitCode']}"))
    if state.get("Error"):
        told.append(_row("Event", state["Error"]))
    health = state.get("Health") or {}
    if health:
        told.append(_row("Health", health.get("Status", "")))
        for entry in health.get("Log") or []:
            output = " ".join(str(entry.get("Output", "")).split())[:_HEALTH_OUTPUT]
            told.append(f"  [{entry.get('Start', '')}] exit={entry.get('ExitCode', '')} {output}")
    return told
