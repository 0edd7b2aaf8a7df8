"""What stands on which page of the plugin reference, in which order."""

from __future__ import annotations

from types import ModuleType
from typing import NamedTuple

import shoal.http.answers
import shoal.http.parse
from shoal import errors, kit, testing
from shoal.config import settings
from shoal.models import plan, pools, requests, sandbox, secret, workload
from shoal.plugin import context, hookspecs, interfaces
from shoal.plugin.interfaces import (
    agent,
    auth,
    command,
    component,
    ingress,
    networking,
    observer,
    policy,
    renewal,
    resources,
    runtime,
    snapshots,
    store,
    truth,
)
from shoal.plugin.interfaces import pools as native_pools


class Group(NamedTuple):
    """What stands below one heading.

    Attributes:
        source: where the names are taken from.
        module: whose docstring comes first; None for ``intro``.
    """

    title: str
    source: ModuleType
    names: list[str]
    module: ModuleType | None = None
    intro: str = ""


class Reference(NamedTuple):
    """One page."""

    file: str
    title: str
    intro: str
    groups: list[Group]


def _names(module: ModuleType, *others: str) -> list[str]:
    """The public names that a module of interfaces defines, constants first, in the order of the module."""
    public = set(interfaces.__all__) | set(others)
    found = [name for name in vars(module) if name in public and _is_of(module, name)]
    return sorted(found, key=lambda name: isinstance(getattr(module, name), type))


def _is_of(module: ModuleType, name: str) -> bool:
    home = getattr(getattr(module, name), "__module__", module.__name__)
    return home == module.__name__ or not home.startswith("shoal.")


def _interface(title: str, module: ModuleType, *others: str) -> Group:
    return Group(title, module, _names(module, *others), module)


HOOKS = [name for name in vars(hookspecs) if name.startswith("shoal_")]

LOOP = """\
Where a method runs: one that is `async` runs on the server's event loop, and so does every other one, which has to
return at once, from memory. Neither may block it. Exceptions: `Component.check_config` runs before the server answers
anybody, and may read small files; `Command` runs in a process of its own; `ForkedAgent.module` in one of the runtime's.

Where no limit of time is named, none is set: what waits for a service bounds that itself. A method may be called again
before an earlier call has returned, unless its text says otherwise."""

PAGES = [
    Reference(
        "plugin-reference.md",
        "Plugin reference: hooks",
        "Every hook, and what it is given. [plugins.md](plugins.md) is the guide, with an example of each.\n\n"
        "The other pages: [interfaces](plugin-interfaces.md), [the types of their arguments](plugin-models.md), "
        "[errors and helpers](plugin-library.md).",
        [
            Group("Hooks", hookspecs, HOOKS, hookspecs),
            Group(
                "What hooks are given and give",
                hookspecs,
                ["ConfigSection"],
                intro="`from shoal.plugin import ConfigSection, PluginContext, Lifecycle, hookimpl, API_VERSION`",
            ),
            Group("The context", context, ["PluginContext", "Lifecycle"], context),
        ],
    ),
    Reference(
        "plugin-interfaces.md",
        "Plugin reference: interfaces",
        "What plugins implement: `from shoal.plugin.interfaces import …`. The types that are not described here are in "
        f"[plugin-models.md](plugin-models.md).\n\n{LOOP}",
        [
            _interface("Component", component),
            _interface("Store", store),
            _interface("Runtime", runtime),
            _interface("Runtime: several servers on one engine", truth),
            _interface("Runtime: snapshots that the engine lists", snapshots),
            _interface("Runtime: pools of the engine's own", native_pools),
            _interface("Agent", agent),
            _interface("Authenticator", auth),
            _interface("Networking", networking),
            _interface("Ingress", ingress),
            _interface("Renewal", renewal),
            _interface("Observer", observer),
            _interface("Policy", policy, "Governed"),
            _interface("Resources", resources),
            _interface("Command", command),
        ],
    ),
    Reference(
        "plugin-models.md",
        "Plugin reference: types",
        "What the methods of [the interfaces](plugin-interfaces.md) are given and return. They are immutable msgspec "
        "Structs; a changed copy is made by `msgspec.structs.replace`. Times are aware, in UTC.",
        [
            Group(
                "The workload plan",
                plan,
                ["WorkloadPlan", "NetworkPlan", "Sidecar", "Probe", "SecretFile"],
                plan,
            ),
            Group("The workload", workload, ["Workload", "Phase", "Adoption", "WorkloadGone", "Tunnel"], workload),
            Group("The sandbox", sandbox, ["SandboxRecord", "State", "Failure"], sandbox),
            Group(
                "Pools",
                pools,
                ["PoolRecord", "PoolPlace", "CapacitySpec", "CreatePool", "UpdatePool", "Pool", "PoolStatus"],
                pools,
            ),
            Group(
                "Parts of requests",
                requests,
                [
                    "ImageAuth",
                    "PlatformSpec",
                    "NetworkPolicy",
                    "NetworkRule",
                    "Volume",
                    "HostVolume",
                    "ClaimVolume",
                    "OssVolume",
                    "LifecycleHooks",
                    "LifecycleHook",
                    "PeriodicHook",
                    "CreateSandbox",
                    "ImageSpec",
                    "SidecarSpec",
                    "CredentialProxy",
                    "CreateSnapshot",
                    "RenewExpiration",
                ],
                requests,
            ),
            Group("Secrets", secret, ["Secret", "encode_hook", "decode_hook"], secret),
        ],
    ),
    Reference(
        "plugin-library.md",
        "Plugin reference: errors and helpers",
        "What plugins raise and build with.",
        [
            Group(
                "Errors",
                errors,
                ["ShoalError", *[name for name in errors.__all__ if name != "ShoalError"]],
                intro="`shoal.errors`: every failure that a caller can see. The number is the HTTP status. A code has "
                "the form `SCOPE::REASON`; the message is a sentence for people, without secrets. `ConfigError` stops "
                "a start.",
            ),
            Group("shoal.http", shoal.http, list(shoal.http.__all__), shoal.http),
            Group("shoal.kit", kit, list(kit.__all__), kit),
            Group(
                "shoal.config.settings",
                settings,
                ["Section", "Positive", "NotNegative", "Port", "Text"],
                intro="Types for a plugin's own section. The kernel's are in [configuration.md](configuration.md).",
            ),
            Group("shoal.testing", testing, list(testing.__all__), testing),
        ],
    ),
]
