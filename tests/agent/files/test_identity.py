"""Files as an account sees them, through the workers of the real program."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
import threading
import time
from pathlib import Path

import httpx
import pytest
from tests.agent.files.forms import END, TYPE, metadata, part
from tests.agent.files.place import Place, refused
from tests.agent.program import USER, AgentProcess, StartAgent

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="takes root")


def workers(agent: AgentProcess) -> list[int]:
    """The agent's children."""
    text = Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text()
    return [int(pid) for pid in text.split()]


def get(place: Place, uid: int, gid: int, route: str, /, **query: str) -> httpx.Response:
    return place.http.get(f"/v1/filesystem/{uid}/{gid}{route}", params=query)


def upload(place: Place, uid: int, gid: int, path: str, content: bytes) -> httpx.Response:
    body = metadata(path) + part("file", content) + END
    return place.http.post(f"/v1/filesystem/{uid}/{gid}/files/upload", content=body, headers=TYPE)


@as_root
def test_every_route_has_the_accounts_rights(start_agent: StartAgent) -> None:
    place = Place(start_agent(), None)
    place.folder.chmod(0o777)
    content = os.urandom(3_000_000)
    assert upload(place, 1234, 1235, place.path("a/new"), content).status_code == 200
    status = (place.folder / "a/new").stat()
    assert (status.st_uid, status.st_gid, (place.folder / "a").stat().st_uid) == (1234, 1235, 1234)
    assert get(place, 1234, 1235, "/files/download", path=place.path("a/new")).content == content
    assert (
        get(place, 1234, 1235, "/files/info", path=place.path("a/new")).json()[place.path("a/new")]["owner"] == "1234"
    )
    assert len(get(place, 1234, 1235, "/files/search", path=place.path("a")).json()) == 1
    assert len(get(place, 1234, 1235, "/directories/list", path=place.path("a")).json()) == 1
    prefix = "/v1/filesystem/1234/1235"
    for route, body in (
        ("/files/permissions", {place.path("a/new"): {"mode": 600}}),
        ("/files/mv", [{"src": place.path("a/new"), "dest": place.path("a/b")}]),
        ("/files/replace", {place.path("a/b"): {"old": "no such text", "new": ""}}),
        ("/directories", {place.path("a/c"): {}}),
    ):
        assert place.http.post(f"{prefix}{route}", json=body).status_code == 200, route
    refused(get(place, 1236, 1235, "/files/download", path=place.path("a/b")), 403, "PERMISSION_DENIED")
    refused(get(place, 1234, 1235, "/files/download", path="/etc/shadow"), 403, "PERMISSION_DENIED")
    refused(upload(place, 1234, 1235, "/etc/new", b"x"), 403, "PERMISSION_DENIED")
    assert place.http.delete(f"{prefix}/files", params={"path": place.path("a/b")}).status_code == 200
    assert place.http.delete(f"{prefix}/directories", params={"path": place.path("a")}).status_code == 200
    assert place.http.get(f"{prefix}/nothing").text == "404 page not found"
    slashed = place.http.get(f"{prefix}/files/info/?path=/")
    assert (slashed.status_code, slashed.headers["location"]) == (301, f"{prefix}/files/info?path=/")
    place.http.close()


@as_root
def test_the_groups_and_the_home_of_an_account(start_agent: StartAgent) -> None:
    place = Place(start_agent(env={"WHERE": "/etc"}), None)
    place.folder.chmod(0o755)
    account = next((entry for entry in pwd.getpwall() if entry.pw_uid and Path(entry.pw_dir).is_dir()), None)
    assert account is not None
    found = get(place, account.pw_uid, account.pw_gid, "/files/info", path="~").json()
    assert found["~"]["path"] == os.path.normpath(account.pw_dir)
    assert get(place, 0, 0, "/files/info", path="etc/passwd").json()["etc/passwd"]["path"] == "/etc/passwd"
    refused(get(place, 0, 0, "/files/info", path="$WHERE/passwd"), 404, "FILE_NOT_FOUND")
    refused(get(place, 54321, 54321, "/files/info", path="~/x"), 400, "INVALID_REQUEST_BODY")
    worker = workers(place.agent)[0]
    groups = Path(f"/proc/{worker}/status").read_text().partition("Groups:")[2].splitlines()[0].split()
    wanted = {account.pw_gid, *os.getgrouplist(account.pw_name, account.pw_gid)}
    assert {int(group) for group in groups} == wanted
    place.http.close()


@pytest.mark.parametrize("uid", ["x", "-1", "4294967295", "99999999999", "1.5", "%20"])
def test_numbers_that_are_none(agent: AgentProcess, uid: str) -> None:
    with agent.client() as http:
        for pair in (f"{uid}/0", f"0/{uid}"):
            refused(http.get(f"/v1/filesystem/{pair}/files/info"), 400, "INVALID_REQUEST_BODY")


def test_an_ordinary_user_serves_itself_and_nobody_else(user_agent: AgentProcess) -> None:
    place = Place(user_agent, USER)
    assert upload(place, USER, USER, place.path("new"), b"x").status_code == 200
    assert get(place, USER, USER, "/files/download", path=place.path("new")).content == b"x"
    for uid, gid in ((0, 0), (USER, 0), (USER + 1, USER)):
        refused(get(place, uid, gid, "/files/info", path="/"), 403, "PERMISSION_DENIED")
    place.http.close()


@as_root
def test_a_worker_is_started_once_and_its_memory_is_closed(start_agent: StartAgent) -> None:
    agent = start_agent(["--access-token", "sesame"])
    statuses: list[int] = []

    def ask() -> None:
        with agent.client(X_EXECD_ACCESS_TOKEN="sesame") as http:
            statuses.append(http.get("/v1/filesystem/1234/1234/files/info?path=/").status_code)

    threads = [threading.Thread(target=ask) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [200] * 10
    (worker,) = workers(agent)
    look = ["setpriv", "--reuid=1234", "--regid=1234", "--clear-groups", "cat", f"/proc/{worker}/environ"]
    assert subprocess.run(look, capture_output=True, check=False).returncode != 0
    assert "sesame" not in Path(f"/proc/{worker}/environ").read_text()


@as_root
def test_a_worker_that_is_killed_is_replaced(start_agent: StartAgent) -> None:
    agent = start_agent()
    with agent.client() as http:
        for _ in range(3):
            assert http.get("/v1/filesystem/1234/1234/files/info?path=/").status_code == 200
            (worker,) = workers(agent)
            os.kill(worker, signal.SIGKILL)
            while worker in workers(agent):
                time.sleep(0.01)


@as_root
def test_workers_end_with_their_agent(start_agent: StartAgent) -> None:
    for kill in (False, True):
        agent = start_agent()
        with agent.client() as http:
            assert http.get("/v1/filesystem/1234/1234/files/info?path=/").status_code == 200
        (worker,) = workers(agent)
        if kill:
            agent.process.kill()
        agent.stop()
        while Path(f"/proc/{worker}/exe").exists():
            time.sleep(0.01)


@as_root
def test_not_more_workers_than_are_allowed(start_agent: StartAgent) -> None:
    agent = start_agent()
    with agent.client() as http:
        for uid in range(2000, 2020):
            assert http.get(f"/v1/filesystem/{uid}/{uid}/files/info?path=/").status_code == 200
    while len(workers(agent)) > 16:
        time.sleep(0.01)


@as_root
def test_root_without_its_privileges_serves_itself(start_agent: StartAgent) -> None:
    """As in a container that was started without capabilities."""
    without = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
    if subprocess.run([*without, "true"], check=False, capture_output=True).returncode:
        pytest.skip("takes setpriv and the right to drop privileges")
    agent = start_agent(prefix=without)
    with agent.client() as http:
        assert http.get("/v1/filesystem/0/0/files/info?path=/").status_code == 200
        refused(http.get("/v1/filesystem/1234/1234/files/info?path=/"), 403, "PERMISSION_DENIED")
