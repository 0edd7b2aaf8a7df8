"""A program that puts a filter of system calls on itself and becomes the command, assembled here.

Its arguments are the command's. It closes descriptor 4, through which it was itself found, sets no_new_privs, installs
the filter that it holds, and executes its first argument. No tool that is installed everywhere does that last, after a
root was changed; any interpreter would take longer to start than the whole sandbox.
"""

from __future__ import annotations

import struct
from typing import Final

DESCRIPTOR: Final = 4
COMPLAINT: Final = b"the command cannot be executed\n"
FAILED: Final = 126
_BASE: Final = 0x400000
_HEADERS: Final = 64 + 56
_MACHINES: Final = {"x86_64": 62, "aarch64": 183}
"""e_machine."""


def build(machine: str, program: bytes) -> bytes:
    """The ELF file, with the filter in it. Raises KeyError for an unknown architecture."""
    number = _MACHINES[machine]
    assemble = _x86_64 if machine == "x86_64" else _aarch64
    # The code's length does not depend on where the data lies, which is known only then.
    start = _BASE + _HEADERS + -(-len(assemble(_BASE, _BASE)) // 16) * 16
    prog, text = start, start + 16 + len(program)
    code = assemble(prog, text)
    data = struct.pack("<H6xQ", len(program) // 8, prog + 16) + program + COMPLAINT
    body = code.ljust(prog - _BASE - _HEADERS, b"\0") + data
    size = _HEADERS + len(body)
    header = struct.pack(
        "<4sBBBB8xHHIQQQIHHHHHH",
        *(b"\x7fELF", 2, 1, 1, 0),  # 64 bits, little-endian
        *(2, number, 1, _BASE + _HEADERS, 64, 0, 0),  # an executable; where it starts; one table of segments
        *(64, 56, 1, 0, 0, 0),
    )
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x1000)  # all of it, to read and execute
    return header + segment + body


def _x86_64(prog: int, text: int) -> bytes:
    call = b"\x0f\x05"

    def load(register: int, value: int) -> bytes:  # mov r32, imm32
        return bytes([0xB8 + register]) + struct.pack("<I", value)

    rax, rdx, rsi, rdi = 0, 2, 6, 7
    fail = load(rax, 1) + load(rdi, 2) + load(rsi, text) + load(rdx, len(COMPLAINT)) + call  # write
    fail += load(rax, 231) + load(rdi, FAILED) + call  # exit_group
    run = b"\x48\x8b\x7b\x10" + b"\x48\x8d\x73\x10"  # mov rdi, [rbx+16]; lea rsi, [rbx+16]
    run += b"\x48\x8b\x0b" + b"\x48\x8d\x54\xcb\x10"  # mov rcx, [rbx]; lea rdx, [rbx+rcx*8+16]
    run += load(rax, 59) + call  # execve
    filtered = load(rax, 317) + load(rdi, 1) + b"\x31\xf6" + load(rdx, prog) + call  # seccomp(SET_MODE_FILTER, 0, prog)
    filtered += b"\x85\xc0\x0f\x85" + struct.pack("<I", len(run))  # test eax, eax; jnz fail
    rest = filtered + run
    start = b"\x48\x89\xe3" + load(rax, 3) + load(rdi, DESCRIPTOR) + call  # mov rbx, rsp; close
    start += load(rax, 157) + load(rdi, 38) + load(rsi, 1)  # prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    start += b"\x31\xd2\x45\x31\xd2\x45\x31\xc0" + call
    start += b"\x85\xc0\x0f\x85" + struct.pack("<I", len(rest))
    return start + rest + fail


def _aarch64(prog: int, text: int) -> bytes:
    def load(register: int, value: int) -> list[int]:  # movz, movk
        low, high = value & 0xFFFF, value >> 16
        return [0xD2800000 | low << 5 | register, 0xF2A00000 | high << 5 | register]

    def call(number: int) -> list[int]:  # x8, svc 0
        return [*load(8, number), 0xD4000001]

    def unless_zero(over: int) -> list[int]:  # cbnz x0, behind the next ``over`` instructions
        return [0xB5000000 | (over + 1) << 5]

    fail = [*load(0, 2), *load(1, text), *load(2, len(COMPLAINT)), *call(64), *load(0, FAILED), *call(94)]
    # ldr x0, [x19, 16]; add x1, x19, 16; ldr x3, [x19]; add x2, x1, x3, lsl 3
    run = [0xF9400A60, 0x91004261, 0xF9400263, 0x8B030C22, *call(221)]
    rest = [*load(0, 1), *load(1, 0), *load(2, prog), *call(277), *unless_zero(len(run)), *run]
    start = [0x910003F3, *load(0, DESCRIPTOR), *call(57)]  # mov x19, sp; close
    start += [*load(0, 38), *load(1, 1), *load(2, 0), *load(3, 0), *load(4, 0), *call(167), *unless_zero(len(rest))]
    return struct.pack(f"<{len(start + rest + fail)}I", *start, *rest, *fail)
