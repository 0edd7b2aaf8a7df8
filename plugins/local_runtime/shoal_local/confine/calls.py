"""System calls that no sandbox needs, with their numbers by architecture and why they are refused.

Everything else is allowed, up to the newest call that was looked at; calls that came later do not exist for a sandbox.
The list follows what container engines refuse to containers without capabilities: ways to the kernel's own state, to
what namespaces do not separate, and to subsystems with a history of flaws that ordinary programs do without.
Numbers: the kernel's tables (arch/x86/entry/syscalls/syscall_64.tbl, include/uapi/asm-generic/unistd.h).
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Call(NamedTuple):
    """A number by architecture; None where there is no such call."""

    x86_64: int | None
    aarch64: int | None


NEWEST: Final = 466
"""The last number that was looked at (removexattrat, Linux 6.13); the same on both architectures."""

KERNEL: Final = {
    # Code and images of the kernel.
    "init_module": Call(175, 105),
    "finit_module": Call(313, 273),
    "delete_module": Call(176, 106),
    "kexec_load": Call(246, 104),
    "kexec_file_load": Call(320, 294),
    "reboot": Call(169, 142),
    # The machine's clock, swap, accounting, quotas, log and terminal, which are nobody's own.
    "clock_settime": Call(227, 112),
    "settimeofday": Call(164, 170),
    "clock_adjtime": Call(305, 266),
    "swapon": Call(167, 224),
    "swapoff": Call(168, 225),
    "acct": Call(163, 89),
    "quotactl": Call(179, 60),
    "quotactl_fd": Call(443, 443),
    "syslog": Call(103, 116),
    "vhangup": Call(153, 58),
    # Ports of the processor.
    "iopl": Call(172, None),
    "ioperm": Call(173, None),
    # Large subsystems with a history of flaws; programs fall back where they try them at all.
    "bpf": Call(321, 280),
    "perf_event_open": Call(298, 241),
    "userfaultfd": Call(323, 282),
    "io_uring_setup": Call(425, 425),
    "io_uring_enter": Call(426, 426),
    "io_uring_register": Call(427, 427),
    # Files without their paths, and every file of a mount at once: around what is hidden.
    "open_by_handle_at": Call(304, 265),
    "fanotify_init": Call(300, 262),
    # Keys belong to users and not to namespaces; all sandboxes may have one user.
    "keyctl": Call(250, 219),
    "add_key": Call(248, 217),
    "request_key": Call(249, 218),
    # Addresses of the kernel's objects, and memory of other nodes.
    "kcmp": Call(312, 272),
    "move_pages": Call(279, 239),
    # Retired, and kept for programs of the last century.
    "lookup_dcookie": Call(212, 18),
    "nfsservctl": Call(180, 42),
    "uselib": Call(134, None),
    "ustat": Call(136, None),
    "sysfs": Call(139, None),
    "_sysctl": Call(156, None),
}
NAMESPACES: Final = {
    # What root in a user namespace may do beyond an ordinary user: most flaws of the last years needed that.
    "mount": Call(165, 40),
    "umount2": Call(166, 39),
    "pivot_root": Call(155, 41),
    "open_tree": Call(428, 428),
    "move_mount": Call(429, 429),
    "fsopen": Call(430, 430),
    "fsconfig": Call(431, 431),
    "fsmount": Call(432, 432),
    "fspick": Call(433, 433),
    "mount_setattr": Call(442, 442),
    "setns": Call(308, 268),
}
"""Refused unless nested user namespaces are asked for."""

CLONE: Final = Call(56, 220)
CLONE3: Final = Call(435, 435)
"""Its flags lie in memory, where no filter looks: it does not exist, and the C library uses clone(2)."""
UNSHARE: Final = Call(272, 97)
NEW_NAMESPACES: Final = 0x7E020000
"""CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET."""
NEW_TIME: Final = 0x80
"""CLONE_NEWTIME, of unshare(2) alone."""

SOCKET: Final = Call(41, 198)
FAMILIES: Final = (1, 2, 10, 16, 17)
"""AF_UNIX, AF_INET, AF_INET6, AF_NETLINK, AF_PACKET. Of the others, AF_VSOCK leads to the hypervisor, past the network
namespace, and most exist for nothing but their flaws."""

PERSONALITY: Final = Call(135, 92)
PERSONALITIES: Final = (0x0, 0x8, 0x20000, 0x20008, 0x40000, 0xFFFFFFFF)
"""Linux as it is, with old version numbers, without randomised addresses (debuggers), and asking."""

IOCTL: Final = Call(16, 29)
IOCTLS: Final = (0x5412, 0x541C)
"""TIOCSTI and TIOCLINUX: typing on somebody else's terminal."""
