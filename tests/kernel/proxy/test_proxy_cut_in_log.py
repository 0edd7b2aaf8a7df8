"""What a server logs of an answer that broke off: one line that says why, and nothing of uvicorn's beside it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest
from tests.kernel.proxy.harness import answering
from tests.support.servers import ServerProcess


async def test_a_cut_is_told_of_once(tmp_path: Path) -> None:
    env = {"OPENSANDBOX_INSECURE_SERVER": "YES"}
    server = ServerProcess(tmp_path, '[runtime]\ntype = "local"\n[local]\nnetwork = "host"\n', env=env)
    server.start()
    body = {"image": {"uri": "host"}, "entrypoint": ["sleep", "60"], "resourceLimits": {}, "timeout": 600}
    upstream = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf", close=True)
    try:
        async with upstream.running(), httpx.AsyncClient(base_url=server.base, trust_env=False, timeout=60) as http:
            made = (await http.post("/v1/sandboxes", json=body)).json()["id"]
            port = upstream.address.rpartition(":")[2]
            with pytest.raises(httpx.RemoteProtocolError):
                await http.get(f"/v1/sandboxes/{made}/proxy/{port}/")
            await http.delete(f"/v1/sandboxes/{made}")
    finally:
        assert await asyncio.to_thread(server.stop) == 0
    lines = server.log.read_text().splitlines()
    assert len([line for line in lines if "answer cut off" in line]) == 1
    assert [line for line in lines if "ASGI" in line] == []
