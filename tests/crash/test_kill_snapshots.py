"""kill -9 while snapshots are taken: each ends Ready or Failed, nothing half is left, and every sandbox goes on."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import httpx
from tests.support.servers import ServerProcess

FILL = "cd /root; i=0; while [ $i -lt 3000 ]; do : >$i; i=$((i+1)); done; echo filled; exec sleep 600"
ROUNDS = 4
PATIENCE = 120.0


def _until(http: httpx.Client, path: str, busy: str) -> dict[str, Any]:
    deadline = time.monotonic() + PATIENCE
    while (found := http.get(path).json())["status"]["state"] == busy:
        assert time.monotonic() < deadline, found
        time.sleep(0.02)
    return dict(found)


def _create(http: httpx.Client, **fields: Any) -> str:
    answer = http.post("/sandboxes", json={"resourceLimits": {}, "timeout": 600, **fields})
    assert answer.status_code == 202, answer.text
    sandbox_id = str(answer.json()["id"])
    assert _until(http, f"/sandboxes/{sandbox_id}", "Pending")["status"]["state"] == "Running"
    return sandbox_id


def test_each_ends_and_the_sandbox_goes_on(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path)
    server.start(PATIENCE)
    snapshots = server.state_dir / "snapshots"
    with httpx.Client(base_url=f"{server.base}/v1", timeout=30) as http:
        source = _create(http, image={"uri": "host"}, entrypoint=["sh", "-c", FILL])
        deadline = time.monotonic() + PATIENCE
        while "filled" not in http.get(f"/sandboxes/{source}/diagnostics/logs").text:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        for part in range(ROUNDS):
            made = [http.post(f"/sandboxes/{source}/snapshots", json={}).json()["id"] for _ in range(2)]
            time.sleep(part * 0.1)  # any instant will do
            server.kill()
            server.start(PATIENCE)
            assert http.get(f"/sandboxes/{source}").json()["status"]["state"] == "Running"
            for snapshot_id in made:
                assert _until(http, f"/snapshots/{snapshot_id}", "Creating")["status"]["state"] == "Ready"
            assert sorted(path.name for path in snapshots.iterdir()) == sorted(made)
            count = ["sh", "-c", "ls /root | wc -l; exec sleep 600"]
            restored = _create(http, snapshotId=made[0], entrypoint=count)
            deadline = time.monotonic() + PATIENCE
            while "3000" not in http.get(f"/sandboxes/{restored}/diagnostics/logs").text:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            assert http.delete(f"/snapshots/{made[0]}").status_code == 409
            assert http.delete(f"/sandboxes/{restored}").status_code == 204
            for snapshot_id in made:
                assert http.delete(f"/snapshots/{snapshot_id}").status_code == 204
        assert list(snapshots.iterdir()) == []
        assert http.delete(f"/sandboxes/{source}").status_code == 204
    assert server.stop() == 0
