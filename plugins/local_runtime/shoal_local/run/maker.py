"""Making one sandbox out of a plan. `Maker.check` is quick; `Maker.make` blocks."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

from shoal.errors import InvalidRequest
from shoal.models.codes import INVALID_PARAMETER
from shoal.models.plan import WorkloadPlan
from shoal.models.workload import Adoption
from shoal.plugin.interfaces import AgentFiles
from shoal_local.config import LocalSettings
from shoal_local.describe import masked
from shoal_local.image.cache import RootFs, RootFsCache
from shoal_local.image.catalog import Catalog, Kind
from shoal_local.limit import limits as limit_rules
from shoal_local.limit.cgroups import Cgroups
from shoal_local.limit.disk import WORDS
from shoal_local.limit.limits import Enforcement, Limits
from shoal_local.root.assembly import Root
from shoal_local.root.binds import Bind
from shoal_local.root.blueprint import Drawer
from shoal_local.root.mounts import make_directory
from shoal_local.root.volumes import HostVolumes
from shoal_local.run.probe import describe
from shoal_local.run.program import check_text, program_of
from shoal_local.run.reaper import discard, stop
from shoal_local.run.scripts import SandboxProgram
from shoal_local.run.spawn import DiskFull, Isolation, Order, beside_moving_mounts, no_space, start
from shoal_local.snapshot.library import LayerSnapshot, Library
from shoal_local.snapshot.restore import check_user, restorable
from shoal_local.state.box import Box, Spec, Started
from shoal_local.state.observe import alive

_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


class Maker:
    """Everything that making a sandbox needs, found out at start."""

    def __init__(
        self,
        local: LocalSettings,
        isolation: Isolation,
        groups: Cgroups,
        catalog: Catalog,
        images: RootFsCache,
        volumes: HostVolumes,
        trash: Path,
        library: Library,
    ) -> None:
        self._local = local
        self._isolation = isolation
        self._drawer = Drawer(isolation.place)
        self._groups = groups
        self._catalog = catalog
        self._images = images
        self._volumes = volumes
        self._trash = trash
        self._library = library

    def enforced_words(self) -> dict[str, str]:
        """For the log: by what limits would be enforced."""
        by = self._enforced(Limits(cpu=1, memory=1, pids=1, disk=1))
        return {f"limit_{name}": getattr(by, name) or "not enforced" for name in ("cpu", "memory", "pids", "disk")}

    def check(self, plan: WorkloadPlan) -> None:
        """Refuse what cannot be made here. Raises InvalidRequest, and Conflict for a snapshot."""
        if _ID.fullmatch(plan.id) is None:
            raise InvalidRequest(INVALID_PARAMETER, "the sandbox id cannot name a directory")
        rootfs = self._known_root(plan)
        self._limits(plan)
        if any("gpu" in amounts for amounts in (plan.resource_limits, plan.resource_requests)):
            raise InvalidRequest(INVALID_PARAMETER, "gpu: the local runtime hands out no GPUs")
        check_text(plan)
        self._volumes.check(plan.volumes)
        if rootfs is not None:
            for volume in plan.volumes:
                Root(Path("/nonexistent"), rootfs, self._drawer).check_target(volume.mount_path)

    def _known_root(self, plan: WorkloadPlan) -> RootFs | None:
        """The root that the sandbox is made of; None for one that has to be unpacked. Raises as `check` does."""
        if plan.snapshot_image is not None:
            snapshot = self._snapshot(plan.snapshot_image)
            Root(Path("/nonexistent"), snapshot.origin.rootfs, self._drawer, snapshot).check_snapshot()
            return snapshot.origin.rootfs
        if not plan.image:
            raise InvalidRequest(INVALID_PARAMETER, "the local runtime needs an image")
        source = self._catalog.resolve(plan.image)
        if self._isolation.method == "none" and (source.kind is not Kind.HOST or plan.volumes):
            raise InvalidRequest(INVALID_PARAMETER, 'without isolation there are only the image "host" and no volumes')
        if source.kind not in (Kind.HOST, Kind.DIRECTORY):
            return None
        return RootFs(source.path, host=source.kind is Kind.HOST)

    def _snapshot(self, reference: str) -> LayerSnapshot:
        snapshot = restorable(self._library, reference)
        check_user(snapshot, self._isolation.drop, isolated=self._isolation.method != "none")
        rootfs = snapshot.origin.rootfs
        if not rootfs.host and not self._images.holds(rootfs):
            self._catalog.check_private(str(rootfs.path), rootfs.path)
        return snapshot

    def _limits(self, plan: WorkloadPlan) -> Limits:
        return limit_rules.parse(plan.resource_limits, self._local.pids_limit, self._local.disk_limit)

    def make(
        self, box: Box, plan: WorkloadPlan, progress: Callable[[str, str], None], agent: AgentFiles | None = None
    ) -> Started:
        """Make the sandbox run, or find it running; ``agent`` are the agent's files.

        Raises EngineFailure or InvalidRequest.
        """
        try:
            return beside_moving_mounts(lambda: self._make(box, plan, progress, agent))
        except OSError as error:
            if no_space(error):
                raise DiskFull from None
            raise

    def _make(
        self, box: Box, plan: WorkloadPlan, progress: Callable[[str, str], None], agent: AgentFiles | None
    ) -> Started:
        if box.path.exists():
            started = box.started()
            if started is not None and box.spec() is not None and alive(box, started):
                return started
            stop(box, self._groups, 0)
            discard(box, self._groups, self._trash)
        snapshot = None if plan.snapshot_image is None else self._snapshot(plan.snapshot_image)
        rootfs = self._root(plan, progress) if snapshot is None else snapshot.origin.rootfs
        with self._volumes.prepared(plan.volumes) as binds:
            return self._start(box, plan, (rootfs, snapshot), binds, agent)

    def _root(self, plan: WorkloadPlan, progress: Callable[[str, str], None]) -> RootFs:
        source = self._catalog.resolve(plan.image or "")
        if source.kind in (Kind.OCI_LAYOUT, Kind.DOCKER_ARCHIVE):
            progress("IMAGE_PREPARING", f"preparing the image {plan.image}")
        return self._images.get(source)

    def _start(
        self,
        box: Box,
        plan: WorkloadPlan,
        root: tuple[RootFs, LayerSnapshot | None],
        binds: tuple[Bind, ...],
        agent: AgentFiles | None,
    ) -> Started:
        workload = program_of(plan, root[0], self._isolation, self._local.env, home=box.path / "home")
        limits = self._limits(plan)
        box.path.mkdir(mode=0o700)
        if self._isolation.method == "none":
            agent = None
            self._make_home(Path(workload.cwd))
        box.write_spec(self._spec(plan, workload, limits, root[0], agent))
        box.add_event("created")
        folder = None if agent is None else agent.folder
        order = Order(box, root[0], workload, binds, limits, folder, root[1])
        started = start(order, self._isolation, self._drawer, self._groups)
        box.add_event("started", at=started.at)
        return started

    def _make_home(self, home: Path) -> None:
        """Without a mount namespace, the sandbox's user gets to its home through directories that it cannot list."""
        home.parent.chmod(0o711)
        make_directory(home, 0o700, self._isolation.owner)

    def _spec(
        self, plan: WorkloadPlan, workload: SandboxProgram, limits: Limits, rootfs: RootFs, agent: AgentFiles | None
    ) -> Spec:
        uid, gid = self._isolation.user
        return Spec(
            id=plan.id,
            adoption=Adoption(
                created_at=plan.created_at,
                entrypoint=plan.command,
                expires_at=plan.expires_at,
                image=plan.image,
                snapshot_id=plan.snapshot_id,
                platform=plan.platform,
                metadata=plan.metadata,
                extensions=plan.extensions,
            ),
            isolation=self._isolation.method,
            root=describe(self._isolation, self._groups)["Root"],
            workdir=workload.cwd,
            uid=uid,
            gid=gid,
            limits=limits,
            enforced=self._enforced(limits),
            env=masked(workload.env),
            labels=plan.labels,
            agent=agent is not None,
            agent_digest="" if agent is None else agent.digest,
            rootfs=rootfs,
            network="host" if self._isolation.network is None else self._isolation.network.mode,
            volumes=[f"{v.host.path if v.host else ''} -> {v.mount_path}" for v in plan.volumes],
        )

    def _enforced(self, limits: Limits) -> Enforcement:
        groups = self._groups
        memory = groups.label("memory") or "rlimit (address space of each process)"
        return Enforcement(
            cpu=None if limits.cpu is None else groups.label("cpu"),
            memory=None if limits.memory is None else memory,
            pids=groups.label("pids") if limits.pids else None,
            disk=None if limits.disk is None or self._isolation.disk is None else WORDS[self._isolation.disk],
        )
