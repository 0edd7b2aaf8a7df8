"""Gets the driver's modules over the socket and runs them. Also a Python that is too old understands this file."""

import sys


def load():
    path = sys.path[:]
    sys.path[:] = [place for place in path if place]  # no file of the working directory stands in for a library
    import json
    import socket
    import struct

    sock = socket.socket(fileno=int(sys.argv[1]))
    size = struct.unpack(">I", sock.recv(4, socket.MSG_WAITALL))[0]
    sources = json.loads(sock.recv(size, socket.MSG_WAITALL).decode("utf-8"))
    sys.meta_path.insert(0, finder(sources))
    __import__("_shoal.session", fromlist=["main"]).main(sock, path)


def finder(sources):
    from importlib.machinery import ModuleSpec

    class Sources:
        @staticmethod
        def find_spec(name, path=None, target=None):
            known = name == "_shoal" or (name.startswith("_shoal.") and name[7:] in sources)
            if known:
                return ModuleSpec(name, Sources, is_package=name == "_shoal")  # type: ignore[arg-type]
            return None

        @staticmethod
        def create_module(spec):
            return None

        @staticmethod
        def exec_module(module):
            source = sources.get(module.__name__[7:], "")
            exec(compile(source, "<" + module.__name__ + ">", "exec", dont_inherit=True), module.__dict__)

    return Sources


if sys.version_info < (3, 8):
    sys.exit("python " + sys.version.split()[0] + " is too old for code contexts: 3.8 or later is needed")
load()
