"""The shell scripts that become a sandbox.

No process of ours stays between the server and a sandbox but one small shell. The server spawns unshare(1), which
runs ``stage`` in new namespaces: it joins the control groups, sets rlimits, mounts the root, starts the command and
records how it ended. Each program that is executed on the way costs about a millisecond, hence the few of them.

How the unshare form keeps a sandbox in, step by step:

1. ``unshare --mount --pid --ipc --uts`` (and ``--user`` unless root) makes the first namespaces; its shell is pid 1,
   keeps the host's root, reaps orphans, and cannot be traced by the sandbox, which lives in a user namespace below.
2. A second half enters a user namespace of its own, as an unprivileged user of the host, says so through the FIFO
   ``entered`` and waits. Then the root is built and put on top of ``/``, which the FIFO ``mounted`` reports. The order
   matters: the kernel makes no user namespace for a process whose root is not the root of its mount namespace.
3. ``unshare --mount --root=/..`` copies the mounts into that user namespace, where the kernel locks them: nothing
   inside can unmount or remount them, whatever capabilities it has there (mount_namespaces(7), "Restrictions on mount
   namespaces"). ``/..`` is what was put on top of ``/``.

File descriptors: 0 is the lock, 1 the log, 2 a pipe to the server. On the pipe, ``ready`` means that the next step is
the sandbox's own command, and ``network`` that there is a network namespace to be set up, for which the FIFO of that
name is read; anything else is the text of an error.
"""

from __future__ import annotations

import re
from pathlib import Path
from shlex import join, quote
from typing import Final

from msgspec import Struct

from shoal_local.confine.entry import DESCRIPTOR
from shoal_local.limit.cgroups import born_into

READY: Final = "ready"
NETWORK: Final = "network"
BORN: Final = "SHOAL_BORN"
"""Variable of a stage that is in its control group of version 2 already, see `shoal_local.run.launcher`."""
_PLAIN_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SHELL_NAMES: Final = re.compile(
    r"IFS|ENV|PS[0-4]|PWD|OLDPWD|OPTIND|OPTARG|PPID|LINENO|_|UID|EUID|GROUPS|BASH.*|SHELLOPTS|DIRSTACK|FUNCNAME|HIST.*"
    r"|RANDOM|SECONDS|SRANDOM|EPOCH.*|POSIXLY_CORRECT|CDPATH|MAIL.*|FC.*|SHLVL"
)
_LOADER_NAMES: Final = re.compile(
    r"LD_.*|GCONV_PATH|GETCONF_DIR|GLIBC_TUNABLES|HOSTALIASES|LOCALDOMAIN|LOCPATH|MALLOC_.*|NIS_PATH|NLSPATH"
    r"|RESOLV_HOST_CONF|RES_OPTIONS|TMPDIR|TZDIR|LIBMOUNT_.*|LIBBLKID_.*"
)
"""What must not reach a program that runs before the sandbox is shut: glibc's list (sysdeps/generic/unsecvars.h)."""


class Tools(Struct, frozen=True):
    """Absolute paths of the programs used; None = not installed."""

    sh: str
    unshare: str | None
    mount: str | None
    setpriv: str | None
    stat: str | None
    bwrap: str | None


class SandboxProgram(Struct, frozen=True):
    """What is run in the end: argument list, environment and directory, all as the sandbox sees them."""

    argv: tuple[str, ...]
    env: dict[str, str]
    cwd: str


class Drop(Struct, frozen=True):
    """The unprivileged user that a server running as root gives to a sandbox."""

    uid: int
    gid: int


def needs_env_tool(name: str) -> bool:
    """Must this variable be set by env(1) inside the sandbox, because a shell or a loader would act on it before?"""
    return _PLAIN_NAME.fullmatch(name) is None or bool(_SHELL_NAMES.fullmatch(name) or _LOADER_NAMES.fullmatch(name))


def opening(box: Path, groups: list[Path], rlimits: list[str]) -> str:
    """How every ``stage`` begins. A group takes 0 for the writer itself, so no pid has to be known."""
    born = born_into(groups)
    lines = ["set -e", f"cd {quote(str(box))}"]
    for group in groups:
        unless = f'[ -n "${BORN}" ] || ' if group.parent == born else ""
        lines.append(f"{unless}echo 0 >{quote(str(group))}")
    lines.append(f"unset {BORN}")
    return "\n".join([*lines, "ulimit -c 0", *rlimits, "set +e", "exec 7<&0 8>&2 </dev/null 2>&1", ""])


def unshare_command(tools: Tools, stage: Path, *, user: bool, isolate: bool, network: bool) -> list[str]:
    """unshare(1) around ``stage``; without ``isolate`` only a mount namespace, to build bubblewrap's root in.

    ``network``: a network namespace, too. It belongs to who builds the root, so nothing inside has a say in it.
    """
    words = [tools.unshare or "unshare", *(["--user", "--map-root-user"] if user else []), "--mount"]
    words += ["--net"] if network else []
    words += ["--pid", "--ipc", "--uts", "--fork", "--kill-child"] if isolate else []
    return [*words, tools.sh, str(stage)]


ASK_NETWORK: Final = f"echo {NETWORK} >&8\n"
"""Asks the server to set the new network up, which takes as long as building the root. `AWAIT_NETWORK` waits for it, as
does bwrap at its very end."""
AWAIT_NETWORK: Final = '{ read -r word <network && [ "$word" = up ]; }'


def unshare_stage(tools: Tools, drop: Drop | None, build: list[str], root: Path, entry: Path | None) -> str:
    """Build the root, shut, run; see the module's text. If entering fails, the end of pid 1 takes the waiting half too.

    ``build`` are the commands that make ``root``; ``entry`` the program that puts the filter of system calls on.
    """
    confining = f"exec {DESCRIPTOR}<{quote(str(entry))}\n" if entry is not None else ""
    on_top = join([tools.mount or "mount", "--no-canonicalize", "--rbind", str(root), "/."])
    steps = ["read -r entered <&5", *build, on_top]
    enter = [*_dropping(tools, drop), tools.unshare or "unshare", "--user", "--map-root-user", tools.sh, "-s"]
    return (
        f"{confining}exec 5<>entered 6<>mounted\n"
        f"{{ {{ {' && '.join(steps)}; }} >&8 2>&8 && echo go >&6 || echo no >&6; }} 7<&- &\n"
        f"{join(enter)} <inner 7<&-\n"
        "echo $? >exit\n"
    )


def unshare_inner(tools: Tools, workload: SandboxProgram, *, confined: bool) -> str:
    """What the unprivileged half runs, inside its user namespace."""
    # The entry program lies outside of the new root: its descriptor leads to it.
    entry = [f"/proc/self/fd/{DESCRIPTOR}"] if confined else []
    shut = [tools.unshare or "unshare", "--mount", "--propagation=unchanged", "--root=/.."]
    return "\n".join(
        [
            "echo entered >&5",
            "read -r word <&6",
            '[ "$word" = go ] || exit 125',
            f"echo {READY} >&8",
            *_exports(workload.env),
            f"exec {join([*shut, f'--wd={workload.cwd}', '--', *entry, *workload.argv])} </dev/null 5<&- 6<&- 8>&-",
            "",
        ]
    )


def bubblewrap_stage(
    tools: Tools,
    drop: Drop | None,
    workload: SandboxProgram,
    build: list[str],
    seccomp: Path | None,
    *,
    waits: bool = False,
) -> str:
    """Build the root if there is one to build, then turn into bwrap, which reads ``args`` and reports in ``exit``.

    ``seccomp`` is the filter of system calls. ``waits``: the command is not executed before the network is up.
    """
    confining = f"exec {DESCRIPTOR}<{quote(str(seccomp))}\n" if seccomp is not None else ""
    before = f"{{ {' && '.join(build)}; }} >&8 2>&8 || exit 125\n" if build else ""
    words = [*_dropping(tools, drop), tools.bwrap or "bwrap", "--args", "5", "--sync-fd", "7", "--json-status-fd", "9"]
    words += ["--seccomp", str(DESCRIPTOR)] if seccomp is not None else []
    words += ["--block-fd", "6"] if waits else []
    network = f" 6<>{NETWORK}" if waits else ""
    return f"{before}{confining}exec {join([*words, '--', *workload.argv])} 5<args{network} 9>exit 8>&-\n"


def bubblewrap_arguments(mounts: list[str], workload: SandboxProgram, *, network: bool) -> bytes:
    """What bwrap reads from a descriptor, so that no environment shows in a command line.

    ``network``: bwrap is to make a network namespace.
    """
    words = ["--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--uid", "0", "--gid", "0", *mounts]
    words += ["--unshare-net"] if network else []
    words += ["--proc", "/proc", "--chdir", workload.cwd, "--clearenv"]
    for name, value in workload.env.items():
        words += ["--setenv", name, value]
    return b"".join(word.encode() + b"\0" for word in words)


def bare_stage(tools: Tools, drop: Drop | None, workload: SandboxProgram) -> str:
    """Isolation none: the command under its own user, and nothing else."""
    run = [*_exports(workload.env), f"cd {quote(workload.cwd)}"]
    command = join([*_dropping(tools, drop), *workload.argv])
    return f'box=$PWD\n( {"; ".join(run)}; echo {READY} >&8; exec {command} 7<&- 8>&- )\necho $? >"$box/exit"\n'


def mount_all(tools: Tools) -> str:
    """The command that carries out ``fstab``."""
    return join([tools.mount or "mount", "--all", "--no-mtab", "--fstab", "fstab"])


def _dropping(tools: Tools, drop: Drop | None) -> list[str]:
    if drop is None:
        return []
    who = [f"--reuid={drop.uid}", f"--regid={drop.gid}", "--clear-groups", "--inh-caps=-all"]
    return [tools.setpriv or "setpriv", *who, "--no-new-privs"]


def _exports(env: dict[str, str]) -> list[str]:
    return ["unset LC_ALL SHOAL_SANDBOX OLDPWD", *(f"export {name}={quote(value)}" for name, value in env.items())]
