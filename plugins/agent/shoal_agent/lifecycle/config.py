"""Which hooks there are: from a variable, or a file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from shoal_agent.lifecycle.places import VARIABLE, named_file
from shoal_agent.lifecycle.schedule import Schedule

DEFAULT_SECONDS = 60
MAX_START_SECONDS, MAX_PERIODIC_SECONDS = 10_800, 300


class HookCommand(NamedTuple):
    """A command of the sandbox's owner."""

    name: str
    command: list[str]
    seconds: int
    """After which it is killed."""
    schedule: Schedule | None


class Hooks(NamedTuple):
    """All of a sandbox."""

    pre_start: HookCommand | None
    periodic: list[HookCommand]


class BadLifecycle(ValueError):
    """What is configured cannot be run; the text says what is wrong."""


def load(environ: Mapping[str, str]) -> Hooks:
    """The hooks that the variable describes as JSON, else the file as TOML; none if there is neither.

    Raises `BadLifecycle`.
    """
    try:
        return parse(_source(environ))
    except (OSError, ValueError) as error:
        raise BadLifecycle(str(error)) from error


def _source(environ: Mapping[str, str]) -> Any:
    if text := environ.get(VARIABLE):
        return json.loads(text)
    path = named_file(environ)
    if path is None:
        return {}
    import tomllib  # hardly any sandbox has such a file

    with open(path, "rb") as file:
        return tomllib.load(file)


def parse(value: Any) -> Hooks:
    """Raises `BadLifecycle`."""
    fields = _object(value, "lifecycle")
    start = fields.get("prestart")
    periodic = [] if fields.get("periodic") is None else fields["periodic"]
    if not isinstance(periodic, list):
        raise BadLifecycle("periodic must be a list")
    return Hooks(
        None if start is None else _hook(_object(start, "preStart"), "preStart", MAX_START_SECONDS),
        [_periodic(_object(item, "periodic")) for item in periodic],
    )


def _periodic(fields: dict[str, Any]) -> HookCommand:
    name, schedule = fields.get("name"), fields.get("schedule")
    if not isinstance(name, str) or not name.strip() or not isinstance(schedule, str):
        raise BadLifecycle("a periodic hook needs a name and a schedule")
    hook = _hook(fields, name.strip(), MAX_PERIODIC_SECONDS)
    try:
        return hook._replace(schedule=Schedule(schedule))
    except ValueError as error:
        raise BadLifecycle(f"{name}: {error}") from None


def _hook(fields: dict[str, Any], name: str, most: int) -> HookCommand:
    command, seconds = fields.get("command"), fields.get("timeoutseconds")
    seconds = DEFAULT_SECONDS if seconds is None else seconds
    texts = isinstance(command, list) and all(isinstance(part, str) and "\0" not in part for part in command)
    if not isinstance(command, list) or not texts or not command or not command[0].strip():
        raise BadLifecycle(f"{name}: command must be a list of texts, the program first")
    if not isinstance(seconds, int) or isinstance(seconds, bool) or not 1 <= seconds <= most:
        raise BadLifecycle(f"{name}: timeoutSeconds must be between 1 and {most}")
    return HookCommand(name, command, seconds, None)


def _object(value: Any, name: str) -> dict[str, Any]:
    """Keys match whatever their case and underscores: JSON and TOML are written differently."""
    if not isinstance(value, dict):
        raise BadLifecycle(f"{name} must be an object")
    return {key.replace("_", "").lower(): item for key, item in value.items()}
