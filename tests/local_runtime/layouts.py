"""Builds tiny container images on disk: OCI layouts and docker archives."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shoal_local.image.oci import architecture

Entry = tuple[str, str | bytes | None]
"""(name, content): a directory ends in a slash; ``->target`` is a symlink, ``=>target`` a hard link, None a device."""


def layer(entries: Sequence[Entry], *, compressed: bool = False) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in entries:
            info = tarfile.TarInfo(name)
            info.mode = 0o755
            data = b""
            if name.endswith("/"):
                info.type = tarfile.DIRTYPE
            elif content is None:
                info.type, info.devmajor, info.devminor = tarfile.CHRTYPE, 1, 3
            elif isinstance(content, str) and content[:2] in ("->", "=>"):
                info.type = tarfile.SYMTYPE if content[0] == "-" else tarfile.LNKTYPE
                info.linkname = content[2:]
            else:
                data = content.encode() if isinstance(content, str) else content
                info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return gzip.compress(buffer.getvalue()) if compressed else buffer.getvalue()


def layout(folder: Path, layers: Sequence[bytes], *, ref: str = "app", arch: str | None = None, **config: Any) -> Path:
    """An OCI layout with one image; ``config`` is its run configuration."""
    blobs = folder / "blobs/sha256"
    blobs.mkdir(parents=True, exist_ok=True)

    def put(content: bytes, kind: str, **more: Any) -> dict[str, Any]:
        digest = hashlib.sha256(content).hexdigest()
        (blobs / digest).write_bytes(content)
        return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(content), **more}

    image = {"architecture": arch or architecture(), "os": "linux", "config": config, "rootfs": {"diff_ids": []}}
    manifest = {
        "schemaVersion": 2,
        "config": put(json.dumps(image).encode(), "application/vnd.oci.image.config.v1+json"),
        "layers": [put(content, "application/vnd.oci.image.layer.v1.tar") for content in layers],
    }
    kind = "application/vnd.oci.image.manifest.v1+json"
    platform = {"architecture": arch or architecture(), "os": "linux"}
    entry = put(json.dumps(manifest).encode(), kind, platform=platform)
    index_kind = "application/vnd.oci.image.index.v1+json"
    foreign = {**entry, "platform": {"architecture": "other", "os": "linux"}}
    nested = json.dumps({"manifests": [foreign, entry]}).encode()
    name = {"org.opencontainers.image.ref.name": ref}
    old = json.loads((folder / "index.json").read_text())["manifests"] if (folder / "index.json").exists() else []
    (folder / "index.json").write_text(json.dumps({"manifests": [*old, put(nested, index_kind, annotations=name)]}))
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return folder


def docker_archive(file: Path, layers: Sequence[bytes], tag: str = "app:latest", **config: Any) -> Path:
    """What ``docker save`` writes."""
    digests = [f"sha256:{hashlib.sha256(_plain(content)).hexdigest()}" for content in layers]
    image = {"architecture": architecture(), "os": "linux", "config": config, "rootfs": {"diff_ids": digests}}
    names = [f"{number}/layer.tar" for number in range(len(layers))]
    manifest = [{"Config": "config.json", "RepoTags": [tag], "Layers": names}]
    with tarfile.open(file, "w") as archive:
        for name, content in [
            *zip(names, layers, strict=True),
            ("config.json", json.dumps(image).encode()),
            ("manifest.json", json.dumps(manifest).encode()),
        ]:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return file


def _plain(content: bytes) -> bytes:
    return gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content


def program(path: str) -> list[Entry]:
    """A file of this machine with the libraries that it needs, at the same places."""
    import subprocess

    words = subprocess.run(["ldd", path], capture_output=True, text=True, check=False).stdout.split()
    files = {path, *(word for word in words if word.startswith("/"))}
    return [(name.lstrip("/"), Path(name).read_bytes()) for name in sorted(files)]


def tools() -> list[Entry]:
    """Enough to run shell scripts."""
    found: dict[str, str | bytes | None] = {}
    for tool in ("/bin/sh", "/bin/cat", "/bin/ls", "/usr/bin/env", "/bin/touch"):
        found.update(dict(program(tool)))
    return list(found.items())
