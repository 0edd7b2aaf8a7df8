"""The blocking half of the runtime: everything that reads, changes or ends sandboxes on this machine.

All truth is on disk and in the kernel of this machine (`box`, `observe`), so nothing here has to be remembered.
"""

from __future__ import annotations

import fcntl
import os
import resource
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import structlog
from msgspec.structs import replace

from shoal.config.settings import Settings
from shoal.errors import ConfigError, Conflict, EngineFailure, NotFound
from shoal.models.sandbox import SandboxRecord
from shoal.models.workload import Phase, Workload
from shoal_local import describe
from shoal_local.config import LocalSettings
from shoal_local.confine import files as confine
from shoal_local.image.bounds import Bounds
from shoal_local.image.cache import RootFsCache
from shoal_local.image.catalog import Catalog
from shoal_local.limit import disk, freeze
from shoal_local.limit.cgroups import Cgroups, detect
from shoal_local.network import modes
from shoal_local.network.client import Broker
from shoal_local.network.spares import Spares
from shoal_local.root.secrets import masks, secret_paths
from shoal_local.root.volumes import HostVolumes
from shoal_local.run import probe
from shoal_local.run.launch import Launcher
from shoal_local.run.maker import Maker
from shoal_local.run.probe import Verdict
from shoal_local.run.reaper import collect, discard, stop
from shoal_local.run.scripts import Drop
from shoal_local.run.spawn import Isolation, Method
from shoal_local.snapshot import capture
from shoal_local.snapshot.library import Library
from shoal_local.state.box import Box, Started
from shoal_local.state.directory import StateDirectory
from shoal_local.state.observe import alive, describe_exit, observe
from shoal_local.state.trees import remove_tree

log: Final = structlog.get_logger("shoal.local")

LOCK_SECONDS: Final = 3.0
"""A killed server's lock lives on in a child that it was just spawning, until that has executed its program."""
MIN_FREE_BYTES: Final = 256 * 1024
"""Free space below which no sandbox can be made."""
_LOCK_POLL_INTERVAL: Final = 0.02


class Keeper:
    """One server's sandboxes. `open` comes first; every method may block and may be called from any thread."""

    def __init__(self, settings: Settings, local: LocalSettings, config: Path | None = None) -> None:
        self._settings = settings
        self._local = local
        self.state = StateDirectory(settings, local)
        self._secrets = secret_paths(settings, local, self.state, config)
        self._library = Library(self.state.snapshots, self.state.trash)
        self._catalog = Catalog(local.images, self._secrets, local.image_roots)
        self._groups = Cgroups({})
        self._server_lock: int | None = None
        self.broker = Broker()
        self._launcher = Launcher()
        self._spares = Spares(self.state.spares, local.spare_networks, self._launcher)
        self._isolation: Isolation | None = None
        self._verdict: Verdict | None = None
        self._images: RootFsCache
        self.maker: Maker | None = None
        """None until `open`."""

    def open(self) -> list[tuple[Box, Started]]:
        """Find out what this machine can do; returns the sandboxes that run. Raises ConfigError."""
        _use_many_descriptors()
        self.state.open()
        self._server_lock = _lock_state(self.state.path)
        if self._local.cgroups == "auto":
            self._groups = detect(self.state.name)
        self._remove_leftovers()
        self._spares.sweep()
        verdict = self._choose()
        assert verdict is not None  # noqa: S101 - None only where there is something to be better than
        if verdict.isolation.method == "none" and verdict.isolation.drop is not None:
            self.state.let_pass()
        self._images = RootFsCache(self.state.images, verdict.isolation.owner, Bounds.of(self._local))
        self._images.sweep()
        self._library.sweep()
        self._use(verdict)
        return self._running()

    @property
    def doubtful(self) -> bool:
        """May another look at this machine find a better form of isolation?"""
        return self._verdict is not None and bool(self._verdict.doubts)

    def revise(self) -> None:
        """Look again; sandboxes made from now on are isolated as well as this machine can. Raises nothing."""
        verdict = self._verdict
        if verdict is None:
            return
        try:
            unproven = verdict.unproven
            better = self._choose(None if unproven else verdict.isolation)
        except ConfigError as error:
            log.error("sandboxes can probably not be isolated", error=str(error))
            return
        if better is not None and (better.isolation != verdict.isolation or not better.doubts):
            self._use(better)

    def _use(self, verdict: Verdict) -> None:
        isolation = verdict.isolation
        volumes = HostVolumes(self._settings.storage.allowed_host_paths, isolation.owner, self._secrets)
        maker = Maker(
            self._local, isolation, self._groups, self._catalog, self._images, volumes, self.state.trash, self._library
        )
        self._verdict, self._isolation, self.maker = verdict, isolation, maker
        words = {key.lower().replace(" ", "_"): text for key, text in self._isolation_words().items()}
        log.info("isolation of sandboxes", **words, **maker.enforced_words())
        if verdict.doubts:
            log.warning(
                "sandboxes may be isolated worse than this machine can; it will be looked at again",
                method=isolation.method,
                overlay=isolation.overlay,
                doubts="; ".join(verdict.doubts),
            )

    def give_up_stock(self) -> None:
        """End the networks that no sandbox has taken, for good."""
        self._spares.close()

    def close(self) -> None:
        """Let another server have the state directory; the sandboxes go on. Without any, leave nothing outside it."""
        if self._server_lock is not None:
            with suppress(OSError):
                if not self.state.boxes():
                    self._groups.close()
                    self.state.close()
            os.close(self._server_lock)
            self._server_lock = None
        self.broker.close()
        self._launcher.close()

    def stock(self) -> None:
        """Make networks for the next sandboxes."""
        if self._isolation is not None:
            self._spares.fill(self._isolation.network, self._isolation.tools.unshare)

    def writable(self) -> bool:
        """Can sandboxes still be made?"""
        found = os.statvfs(self.state.sandboxes)
        free = (found.f_bfree if os.geteuid() == 0 else found.f_bavail) * found.f_frsize
        return free >= MIN_FREE_BYTES and os.access(self.state.sandboxes, os.W_OK | os.X_OK)

    def all(self) -> list[Workload]:
        """Every sandbox; a directory without a specification is none."""
        return [workload for box in self.state.boxes() if (workload := observe(box, self._groups)) is not None]

    def see(self, box: Box) -> Workload:
        """One sandbox. Raises NotFound."""
        workload = observe(box, self._groups)
        if workload is None:
            raise NotFound("LOCAL::SANDBOX_NOT_FOUND", f"there is no sandbox {box.id}")
        return workload

    def remove(self, box: Box) -> None:
        """End and remove a sandbox; absent is fine. Raises EngineFailure."""
        stop(box, self._groups, self._local.stop_grace_seconds)
        discard(box, self._groups, self.state.trash)

    def pause(self, box: Box) -> Workload:
        """Raises Conflict, NotFound, EngineFailure."""
        if self.see(box).phase is not Phase.RUNNING:
            raise Conflict("LOCAL::SANDBOX_NOT_RUNNING", "the sandbox is not running")
        freeze.freeze(box, self._groups)
        return self._shifted(box, "paused")

    def resume(self, box: Box) -> Workload:
        """Raises Conflict, NotFound, EngineFailure."""
        if self.see(box).phase is not Phase.PAUSED:
            raise Conflict("LOCAL::SANDBOX_NOT_PAUSED", "the sandbox is not paused")
        freeze.thaw(box, self._groups)
        return self._shifted(box, "resumed")

    def check_snapshot(self, box: Box) -> None:
        """Raises Conflict for a sandbox that cannot be captured."""
        capture.check(box.spec())

    def snapshot(self, box: Box, snapshot_id: str) -> str:
        """Capture a running sandbox; returns the reference. Raises NotFound, Conflict, EngineFailure."""
        self.see(box)
        capture.take(box, self._groups, self._library, snapshot_id)
        box.add_event("captured", snapshot_id)
        return snapshot_id

    def delete_snapshot(self, snapshot_id: str) -> None:
        """Raises Conflict while a sandbox that was made of it is there, EngineFailure."""
        capture.discard(self._library, self.state.boxes(), snapshot_id)

    def apply(self, record: SandboxRecord) -> None:
        """Keep the expiry and the metadata where a lost store could be rebuilt from."""
        box = self.state.box(record.id)
        spec = box.spec()
        if spec is not None:
            spec.adoption = replace(spec.adoption, expires_at=record.expires_at, metadata=record.metadata)
            try:
                box.write_spec(spec)
            except OSError as error:  # a full disk: the store has it
                log.warning("a change is not kept beside the sandbox", sandbox_id=box.id, error=str(error))

    def ended(self, box: Box, pid: int) -> Workload | None:
        """The sandbox's frame has ended: collect it, make sure that nothing is left, and say how it ended."""
        collect(pid)
        if box.started() is None:
            return None
        stop(box, self._groups, 0)
        workload = observe(box, self._groups)
        if workload is not None and workload.phase in (Phase.EXITED, Phase.FAILED):
            how = box.ended()
            if workload.reason == "OOM_KILLED":
                box.add_event("oom", "a process was killed for exceeding the memory limit")
            box.add_event("exited", "" if how is None else describe_exit(how[0]), at=workload.since)
        return workload

    def started(self, sandbox_id: str) -> Started:
        """The processes of a running sandbox. Raises NotFound."""
        started = self.state.box(sandbox_id).started()
        if started is None:
            raise NotFound("LOCAL::SANDBOX_NOT_FOUND", f"there is no running sandbox {sandbox_id}")
        return started

    def groups_of(self, sandbox_id: str) -> list[Path]:
        """The files by which a process joins a sandbox's control groups."""
        return self._groups.joined(sandbox_id)

    def filter(self) -> Path | None:
        """The file of the filter of system calls; None = there is no filter."""
        confinement = None if self._isolation is None else self._isolation.confinement
        return None if confinement is None else confinement.filter

    def events(self, box: Box, limit: int) -> str:
        """Text for the events route. Raises NotFound."""
        workload, spec = self.see(box), box.spec()
        return "" if spec is None else describe.events(spec, workload, box.events(), limit)

    def inspect(self, box: Box) -> str:
        """Text for the inspect route. Raises NotFound."""
        workload, spec = self.see(box), box.spec()
        if spec is None:
            return ""
        # How it was made may differ from how the next one would be.
        words = {**self._isolation_words(), "Method": spec.isolation, "Root": spec.root}
        hint = modes.hint(self._local) if spec.network == "none" else None
        return describe.inspect(spec, workload, box.started(), box.ended(), words, hint)

    def empty_trash(self) -> None:
        """Remove what was set aside and could not be removed then; what still cannot stays for the next call.

        Networks that no sandbox has wanted for long are given up, too.
        """
        self._spares.tend()
        for entry in self.state.trash.iterdir():
            try:
                remove_tree(entry)
            except Exception as error:  # whatever is wrong with one, the others are still to go
                log.warning("files cannot be removed", path=str(entry), error=str(error))

    def _choose(self, better_than: Isolation | None = None) -> Verdict | None:
        drop = Drop(self._local.uid, self._local.gid) if os.geteuid() == 0 else None
        tools, state = probe.find_tools(), self.state
        hidden = masks(self._secrets)
        network = modes.choose(self._local, self.broker)
        confinement = None
        if self._local.seccomp == "auto":
            confinement = confine.prepare(state.confine, nested=self._local.nested_namespaces)

        def make(method: Method, overlay: bool, staged: bool) -> Isolation:
            quota = disk.choose(self._local) if method == "unshare" or staged else None
            places = (state.mountpoint, hidden, state.dev, state.templates)
            form = Isolation(method, overlay, staged, drop, tools, *places)
            return replace(
                form, disk=quota, network=network, confinement=confinement, launcher=self._launcher, spares=self._spares
            )

        try:
            return probe.choose(self._local, make, state.sandboxes, state.trash, better_than)
        except probe.Impossible as error:
            if network is None or network.mode == "none" or self._local.network != "auto":
                raise
            log.warning("sandboxes get no way to the internet", tried="; ".join(error.tried))
            network = modes.without(network)
        return probe.choose(self._local, make, state.sandboxes, state.trash, better_than)

    def _isolation_words(self) -> dict[str, str]:
        return {} if self._isolation is None else probe.describe(self._isolation, self._groups)

    def _remove_leftovers(self) -> None:
        """What a killed server left that no sandbox can come of: trials, directories without specification, groups."""
        for box in self.state.boxes():
            if box.spec() is None:
                stop(box, self._groups, 0)
                discard(box, self._groups, self.state.trash)
            elif box.captured():
                self._release(box)
        for stray in self._groups.known() - {box.id for box in self.state.boxes()}:
            # Its directory was taken away; its processes may not have been.
            stop(self.state.box(stray), self._groups, 0)
            self._groups.remove(stray)

    def _release(self, box: Box) -> None:
        try:
            capture.release(box, self._groups)
        except (EngineFailure, OSError) as error:
            log.error("a sandbox stands still since a snapshot was cut off", sandbox_id=box.id, error=str(error))

    def _running(self) -> list[tuple[Box, Started]]:
        found = []
        for box in self.state.boxes():
            started = box.started()
            if started is not None and alive(box, started):
                found.append((box, started))
        return found

    def _shifted(self, box: Box, kind: str) -> Workload:
        now, started = datetime.now(UTC), box.started()
        if started is not None:
            with suppress(OSError):  # on a full disk the time is not kept; it is paused all the same
                box.write_started(replace(started, since=now))
        box.add_event(kind, at=now)
        return self.see(box)


def _use_many_descriptors() -> None:
    """A pidfd for each sandbox needs many; and what this process inherited must not be inherited further."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    for entry in Path("/proc/self/fd").iterdir():
        if int(entry.name) > 2:
            with suppress(OSError):
                os.set_inheritable(int(entry.name), False)


def _lock_state(path: Path) -> int:
    """One server at a time on one state directory. Raises ConfigError."""
    handle = os.open(path / "server.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() < deadline:
                time.sleep(_LOCK_POLL_INTERVAL)
                continue
            os.close(handle)
            raise ConfigError(f"local.state_dir: another server is using {path}") from None
        return handle
