"""The bundle as one file, for servers that copy nothing but ``/execd`` and ``/bootstrap.sh`` out of an agent's image.

It is a shell script with an archive behind it. At its first start it unpacks itself beside itself, or below the
temporary directory where it may not write there; then it is the agent. It takes a shell, ``tail`` and ``tar``.
"""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Final

from shoal_agent.bundle.build import FLAGS, told_digest

_SCRIPT: Final = """\
#!/bin/sh
# The agent, its interpreter and its libraries: a script of {lines} lines, and an archive from byte {start} on.
unpack() {{
    mkdir -p "$1" && draft=$1/.agent-$$ && mkdir "$draft" &&
        tail -c +{start} "$me" | tar -xf - -C "$draft" && mv "$draft/agent" "$1/agent" && rmdir "$draft"
}} 2>/dev/null
me=$0
beside=${{0%/*}}
elsewhere=${{TMPDIR:-/tmp}}/.execd-{name}
for home in "$beside" "$elsewhere"; do
    [ -x "$home/agent/python" ] || unpack "$home" || [ -x "$home/agent/python" ] || continue
    exec "$home/agent/ld" "$home/agent/python" {flags} "$home/agent/execd" "$@"
done
echo "execd: it cannot be unpacked in $beside or $elsewhere, which takes tail, tar and 20 MB" >&2
exit 1
"""


def single_file(bundle: Path) -> bytes:
    """The file for a bundle. Raises OSError, ValueError for a folder that is none."""
    digest = told_digest(bundle)
    if digest is None:
        raise ValueError(f"{bundle} holds no bundle")
    archive = _archive(bundle)
    start = 0
    while True:  # the offset stands in the script that it is the length of
        script = _SCRIPT.format(start=start, lines=_SCRIPT.count("\n"), flags=FLAGS, name=digest[7:19]).encode()
        if len(script) + 1 == start:
            return script + archive
        start = len(script) + 1


def _archive(bundle: Path) -> bytes:
    """The folder ``agent`` with the start script in it; no times, nobody's."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for path in [bundle / "agent", *sorted((bundle / "agent").rglob("*"))]:
            archive.add(path, str(path.relative_to(bundle)), recursive=False, filter=_anonymous)
        archive.add(bundle / "execd", "agent/execd", filter=_anonymous)
    return content.getvalue()


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mtime = 0
    return member
