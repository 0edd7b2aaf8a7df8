"""A program, not a test: a server with agents, run by test_agent_parent to be killed, or as another user.

It makes a sandbox, or finds the one that is named, says what its agent answers, and removes it when it may go on.
"""

from __future__ import annotations

import asyncio
import concurrent.futures.thread
import encodings.idna
import json
import linecache
import os
import shutil
import sys
from pathlib import Path

from tests.local_runtime.agents import shell, wanted
from tests.local_runtime.machine import ignore, local, settings

from shoal_agent.placement import AgentSettings, BuiltinAgent
from shoal_local.runtime import LocalRuntime

LOADED = (concurrent.futures.thread, encodings.idna, linecache)
"""Before the change of user, who may not be able to read Python's own files."""


async def main(base: Path, isolation: str, bundle: str, given: str) -> None:
    agent = BuiltinAgent(AgentSettings(bundle=bundle))
    runtime = LocalRuntime(settings(base), local(isolation=isolation, network="none"), None, agent)
    await runtime.start()
    made = wanted()
    if not given:
        await runtime.create(made, ignore)
    sandbox_id = given or made.id
    said = await shell(runtime, sandbox_id, "id -u; echo mine >>/root/file; cat /root/file")
    sys.stdout.write(json.dumps({"id": sandbox_id, "said": said}) + "\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.readline)
    await runtime.delete(sandbox_id)
    await runtime.stop()


if __name__ == "__main__":
    base, isolation, bundle, uid, given = Path(sys.argv[1]), *sys.argv[2:4], int(sys.argv[4]), sys.argv[5]
    if os.geteuid() == 0 and uid != 0:
        os.setgroups([])
        os.setgid(uid)
        os.setuid(uid)
        if not os.access(sys.executable, os.X_OK):  # the broker of namespaces is a program of its own
            sys.executable = shutil.which("python3", path="/usr/bin:/bin") or sys.executable
    os.environ["HOME"] = str(base)
    asyncio.run(main(base, isolation, bundle, given))
