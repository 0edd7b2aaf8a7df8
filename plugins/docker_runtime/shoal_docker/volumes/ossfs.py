"""The programs ``ossfs`` (1.0) and ``ossfs2`` (2.0): their rules, their arguments, and running them.

No shell is involved. Credentials go through a file of mode 0600 that lives as long as the call, and are taken out of
whatever the program prints before it becomes part of an error.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from msgspec import Struct

from shoal.errors import EngineFailure, InvalidRequest
from shoal.models.codes import INVALID_PARAMETER
from shoal.models.requests import OssVolume, Volume
from shoal.models.secret import Secret
from shoal_docker.volumes.mounts import mount_points

MOUNT_FAILED: Final = "VOLUME::OSSFS_MOUNT_FAILED"
MOUNT_SECONDS: Final = 30.0
UNMOUNT_SECONDS: Final = 20.0
FILE_PREFIX: Final = "shoal-ossfs-"
OLD_FILE_SECONDS: Final = 600.0
OPTION: Final = "VOLUME::INVALID_OSSFS_OPTION"
CREDENTIALS: Final = "VOLUME::INVALID_OSSFS_CREDENTIALS"
ENDPOINT: Final = "VOLUME::INVALID_OSSFS_ENDPOINT"
BUCKET: Final = "VOLUME::INVALID_OSSFS_BUCKET"
_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]")
_META: Final = re.compile(r"[;&|`$<>(){}'\"\\\x00-\x1f\x7f]")
"""Meaningless here, but refused as opensandbox-server does; a line break would add a line to a file of options."""
_TAKEN: Final = frozenset(
    {
        *("url", "bucket", "servicepath", "passwd_file", "ram_role", "credlib", "credlib_opts"),
        *("logfile", "tmpdir", "use_cache", "cache_dir", "mime", "ahbe_conf", "conf", "config_file", "ssl_client_cert"),
        *("dev", "suid"),
    }
)
"""Options that say what the volume's own fields say, or name files of this machine."""
_TAKEN_START: Final = ("oss_", "log_", "audit_log", "credential", "mount_point")
_READ, _SHOWN = 65536, 500
"""Bytes of what a program prints that are looked at, and characters that are shown."""


class ProgramResult(Struct, frozen=True):
    """How a program ended: its exit code, None if it took too long; and what it printed, on one line."""

    code: int | None
    printed: str


# --- Rules -----------------------------------------------------------------------------------------------------------


def check(volume: Volume, *, shared: bool) -> None:
    """Raise InvalidRequest for what the API refuses (docs/wire/docker.md section 9), the first problem found.

    ``shared``: whether the engine sees this machine's files.
    """
    bucket, where = _bucket(volume), f"volumes: ossfs of {volume.name}"
    if not shared:
        message = f"{where}: buckets are mounted on this server's machine, whose files the engine does not see."
        raise InvalidRequest(INVALID_PARAMETER, message)
    if not bucket.bucket.strip():
        raise InvalidRequest(BUCKET, f"{where}: the bucket is blank.")
    if _BUCKET.fullmatch(bucket.bucket) is None:
        message = f"{where}: a bucket has 3 to 63 lower-case letters, digits and inner hyphens."
        raise InvalidRequest(INVALID_PARAMETER, message)
    if not bucket.endpoint.strip():
        raise InvalidRequest(ENDPOINT, f"{where}: the endpoint is blank.")
    _plain(bucket.endpoint, f"{where}: the endpoint", spaces=False)
    for option in bucket.options or []:
        _check_option(option, where)
    _check_credentials(bucket, where)
    _plain(volume.sub_path or "", f"{where}: subPath")


def _check_option(option: str, where: str) -> None:
    if not option.strip():
        raise InvalidRequest(OPTION, f"{where}: an option is blank.")
    if option.lstrip().startswith("-"):
        raise InvalidRequest(OPTION, f"{where}: an option is written without a leading '-'.")
    _plain(option, f"{where}: an option")
    for word in option.split(","):
        name = word.partition("=")[0].strip().lower()
        if name in _TAKEN or name.startswith(_TAKEN_START):
            raise InvalidRequest(OPTION, f"{where}: the option {name} is not a caller's to set.")


def _check_credentials(bucket: OssVolume, where: str) -> None:
    """Each is one field of a file of lines."""
    for text in _secrets(bucket):
        if not text.strip() or any(ord(char) < 32 for char in text):
            raise InvalidRequest(CREDENTIALS, f"{where}: a credential is blank or holds a control character.")
    if ":" in (bucket.access_key_id or ""):
        raise InvalidRequest(CREDENTIALS, f"{where}: accessKeyId holds a colon.")


def _plain(text: str, what: str, *, spaces: bool = True) -> None:
    if _META.search(text) or (not spaces and " " in text.strip()):
        raise InvalidRequest(INVALID_PARAMETER, f"{what} holds a character that is not allowed.")


def endpoint(bucket: OssVolume) -> str:
    """The endpoint as a URL; https where no scheme is written."""
    text = bucket.endpoint.strip()
    return text if "://" in text else f"https://{text}"


def prefix(sub_path: str | None) -> str:
    """The part of the bucket that is mounted, without slashes around it; empty for all of it."""
    normal = os.path.normpath(sub_path) if sub_path else ""
    return "" if normal == "." else normal.strip("/")


# --- Running ---------------------------------------------------------------------------------------------------------


async def mount(volume: Volume, path: str) -> None:
    """Mount a bucket at an empty directory.

    Raises EngineFailure with the program's own words, without credentials.
    """
    bucket = _bucket(volume)
    with _file_of(bucket, volume.sub_path) as file:
        ended = await _run(_command(bucket, volume.sub_path, path, file), MOUNT_SECONDS)
    if ended.code == 0:
        return
    printed = ended.printed
    for secret in filter(None, _secrets(bucket)):
        printed = printed.replace(secret, Secret.MASK)
    why = f"took longer than {MOUNT_SECONDS:g} seconds" if ended.code is None else f"ended with {ended.code}"
    raise EngineFailure(MOUNT_FAILED, f"The bucket of {volume.name} was not mounted: {why}: {_end(printed)}")


async def unmount(path: str) -> str | None:
    """Unmount; None, or what went wrong."""
    problems = []
    for program in (["fusermount", "-u", path], ["umount", path]):
        ended = await _run(program, UNMOUNT_SECONDS)
        if ended.code == 0:
            return None
        problems.append(f"{program[0]}: {_end(ended.printed)}")
    return "; ".join(problems)


def is_usable(path: str) -> bool:
    """Whether something is mounted there whose process still answers. Blocks."""
    if path not in mount_points():
        return False
    try:
        Path(path).stat()
    except OSError:
        return False
    return True


def remove_old_files() -> None:
    """Remove files of credentials that a killed server left behind. Blocks."""
    oldest = time.time() - OLD_FILE_SECONDS
    for file in Path(tempfile.gettempdir()).glob(FILE_PREFIX + "*"):
        with contextlib.suppress(OSError):
            if file.lstat().st_mtime < oldest:
                file.unlink()


def _command(bucket: OssVolume, sub_path: str | None, path: str, file: str) -> list[str]:
    if bucket.version == "2.0":
        return ["ossfs2", "mount", path, "-c", file]
    part = prefix(sub_path)
    source = f"{bucket.bucket}:/{part}" if part else bucket.bucket
    options = [f"url={endpoint(bucket)}", f"passwd_file={file}", *(bucket.options or [])]
    return ["ossfs", source, path, *(word for option in options for word in ("-o", option))]


def _content(bucket: OssVolume, sub_path: str | None) -> str:
    key, secret = _secrets(bucket)
    if bucket.version == "1.0":
        return f"{bucket.bucket}:{key}:{secret}\n"
    part = prefix(sub_path)
    lines = [
        f"--oss_endpoint={endpoint(bucket)}",
        f"--oss_bucket={bucket.bucket}",
        f"--oss_access_key_id={key}",
        f"--oss_access_key_secret={secret}",
        *([f"--oss_bucket_prefix={part}/"] if part else []),
        *(f"--{option}" for option in bucket.options or []),
    ]
    return "\n".join(lines) + "\n"


@contextlib.contextmanager
def _file_of(bucket: OssVolume, sub_path: str | None) -> Iterator[str]:
    """A file of this process alone, gone afterwards."""
    number, name = tempfile.mkstemp(prefix=FILE_PREFIX)  # mode 0600
    try:
        with os.fdopen(number, "w") as file:
            file.write(_content(bucket, sub_path))
        yield name
    finally:
        Path(name).unlink(missing_ok=True)


async def _run(command: Sequence[str], seconds: float) -> ProgramResult:
    """Run to the end, or to the end of the time, and leave no process of it behind then.

    What it prints goes to a file: a process that it leaves in the background would hold a pipe open for ever.
    """
    with tempfile.TemporaryFile() as printed:
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=printed,
                stderr=printed,
                start_new_session=True,
            )
        except OSError as error:
            return ProgramResult(127, f"{command[0]} cannot be run on this machine: {error.strerror}")
        code: int | None
        try:
            code = await asyncio.wait_for(process.wait(), seconds)
        except TimeoutError:
            code = None
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
        size = printed.seek(0, os.SEEK_END)
        printed.seek(max(0, size - _READ))
        return ProgramResult(code, " ".join(printed.read().decode(errors="replace").split()))


def _end(printed: str) -> str:
    return printed[-_SHOWN:] or "it printed nothing"


def _secrets(bucket: OssVolume) -> tuple[str, str]:
    secret = bucket.access_key_secret
    return bucket.access_key_id or "", secret.reveal() if secret is not None else ""


def _bucket(volume: Volume) -> OssVolume:
    assert volume.ossfs is not None  # noqa: S101 - the caller looked
    return volume.ossfs
