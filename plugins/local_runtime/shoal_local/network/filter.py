"""A packet filter in a network namespace, told to the kernel's nf_tables as netlink messages.

Imported by the broker, so on the standard library alone. Sources: nf_tables.h and nfnetlink.h of the kernel.
"""

from __future__ import annotations

import os
import socket
import struct

NETLINK_NETFILTER = 12
_BEGIN, _END, _TABLES = 16, 17, 10
_NEW_TABLE, _NEW_CHAIN, _NEW_RULE = _TABLES << 8 | 0, _TABLES << 8 | 3, _TABLES << 8 | 6
_REQUEST, _ACK, _CREATE, _APPEND = 0x1, 0x4, 0x400, 0x800
_ERROR = 2
_LOCAL_OUT = 3
_LOOPBACK_INDEX = 1
"""The index of ``lo`` in every namespace."""
_META_PROTOCOL = 16
"""The key of a packet's protocol: TCP, UDP."""
_PROHIBITED = 13
"""ICMP code: communication administratively prohibited."""


def install(allowed: list[str], denied: list[str]) -> None:
    """Let nothing out to the networks ``denied`` except to those ``allowed``, in this process's namespace.

    Networks are ``address/bits``, IPv4; an allowed one may end in ``:port``: only that port of TCP and UDP is open.
    Programs are told at once that a destination is closed. Raises OSError.
    """
    table, chain = _text(1, "shoal"), _text(2, "out")
    hook = _nested(4, _number(1, _LOCAL_OUT), _number(2, 0))
    loopback = [_expression("meta", _number(1, 1), _number(2, 5)), _compare(struct.pack("=I", _LOOPBACK_INDEX))]
    rules = [[*loopback, _accept()]]
    rules += [[*words, _accept()] for network in allowed for words in _open(*network.split(":"))]
    rules += [[*_within(network), _reject()] for network in denied]
    messages = [
        _message(_BEGIN, 0, b"", family=0, resource=_TABLES),
        _message(_NEW_TABLE, _CREATE | _ACK, table),
        _message(_NEW_CHAIN, _CREATE | _ACK, table + _text(3, "out") + hook + _text(7, "filter")),
        *(_message(_NEW_RULE, _CREATE | _APPEND | _ACK, table + chain + _nested(4, *rule)) for rule in rules),
        _message(_END, 0, b"", family=0, resource=_TABLES),
    ]
    _send(messages, len(messages) - 2)


def _send(messages: list[bytes], answers: int) -> None:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as handle:
        handle.settimeout(5)
        handle.bind((0, 0))
        handle.send(b"".join(messages))
        while answers > 0:
            data = handle.recv(65536)
            while data:
                length, kind = struct.unpack_from("=IH", data)
                if kind == _ERROR:
                    failure = -struct.unpack_from("=i", data, 16)[0]
                    if failure:
                        raise OSError(failure, f"nf_tables: {os.strerror(failure)}")
                    answers -= 1
                data = data[_aligned(length) :]


def _open(network: str, port: str = "") -> list[list[bytes]]:
    """Each of the ways to be within what is allowed."""
    if not port:
        return [_within(network)]
    load = _expression("payload", _number(1, 1), _number(2, 2), _number(3, 2), _number(4, 2))
    to_port = [load, _compare(struct.pack(">H", int(port)))]
    protocol = _expression("meta", _number(1, 1), _number(2, _META_PROTOCOL))
    return [
        [*_within(network), protocol, _compare(bytes([number])), *to_port]
        for number in (socket.IPPROTO_TCP, socket.IPPROTO_UDP)
    ]


def _within(network: str) -> list[bytes]:
    """Whether the destination is in it."""
    address, _, bits = network.partition("/")
    mask = (0xFFFFFFFF << 32 - int(bits)) & 0xFFFFFFFF
    value = struct.unpack(">I", socket.inet_aton(address))[0] & mask
    load = _expression("payload", _number(1, 1), _number(2, 1), _number(3, 16), _number(4, 4))
    masked = _expression(
        "bitwise",
        *(_number(1, 1), _number(2, 1), _number(3, 4)),
        _nested(4, _data(1, struct.pack(">I", mask))),
        _nested(5, _data(1, bytes(4))),
    )
    return [load, masked, _compare(struct.pack(">I", value))]


def _compare(value: bytes) -> bytes:
    return _expression("cmp", _number(1, 1), _number(2, 0), _nested(3, _data(1, value)))


def _accept() -> bytes:
    return _expression("immediate", _number(1, 0), _nested(2, _nested(2, _number(1, 1))))


def _reject() -> bytes:
    return _expression("reject", _number(1, 0), _data(2, bytes([_PROHIBITED])))


def _expression(name: str, *attributes: bytes) -> bytes:
    return _nested(1, _text(1, name), _nested(2, *attributes))


def _message(kind: int, flags: int, body: bytes, *, family: int = socket.AF_INET, resource: int = 0) -> bytes:
    head = struct.pack("=BB", family, 0) + struct.pack(">H", resource)
    return struct.pack("=IHHII", 16 + 4 + len(body), kind, flags | _REQUEST, 0, 0) + head + body


def _nested(kind: int, *attributes: bytes) -> bytes:
    return _data(kind | 0x8000, b"".join(attributes))


def _number(kind: int, value: int) -> bytes:
    return _data(kind, struct.pack(">I", value))


def _text(kind: int, value: str) -> bytes:
    return _data(kind, value.encode() + b"\0")


def _data(kind: int, value: bytes) -> bytes:
    length = 4 + len(value)
    return struct.pack("=HH", length, kind) + value + bytes(_aligned(length) - length)


def _aligned(length: int) -> int:
    return length + 3 & ~3
