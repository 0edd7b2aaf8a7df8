"""Every benchmark in one run, as Markdown; ``--docker`` and ``--kubernetes`` add what wants an engine alone."""

from __future__ import annotations

import os
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path

from bench import creates, docker_runtime, k8s_runtime, posts, proxy, reads, records, renewal, restart, sockets


def main() -> None:
    argv = sys.argv[1:]
    cpu = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        "unknown",
    )
    print(
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {os.cpu_count()} cores of {cpu}, Linux {platform.release()}, "
        f"Python {platform.python_version()}\n",
        flush=True,
    )
    for bench in (
        reads,
        creates,
        records,
        restart,
        proxy,
        posts,
        sockets,
        renewal,
        *([docker_runtime] if "--docker" in argv else []),
        *([k8s_runtime] if "--kubernetes" in argv else []),
    ):
        print(bench.main(argv), flush=True)


if __name__ == "__main__":
    main()
