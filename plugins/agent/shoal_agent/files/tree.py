"""Walking, listing, making and removing directories. Symbolic links are never entered."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator

from shoal_agent.accounts import Accounts
from shoal_agent.files.failures import failure, reported
from shoal_agent.files.glob import Glob
from shoal_agent.files.info import Describer, FileInfo
from shoal_agent.files.permissions import Change
from shoal_agent.http.errors import INVALID_FILE, INVALID_REQUEST_BODY, ApiError


def search(root: str, pattern: str, accounts: Accounts) -> Iterator[FileInfo]:
    """All that is no directory below `root` and whose base name fits `pattern` (empty: any), by name.

    A root that is no directory is itself the result. Folders that cannot be read are skipped.
    Raises `ApiError` 400 for a bad pattern, 404, at once.
    """
    try:
        glob = Glob(pattern) if pattern else None
    except ValueError as error:
        raise ApiError(400, INVALID_REQUEST_BODY, f"invalid pattern {pattern!r}: {error}") from None
    with reported(root):
        os.stat(root)  # a dangling link is missing
        status = os.lstat(root)
        if stat.S_ISDIR(status.st_mode):
            os.scandir(root).close()  # the root itself must be readable
    found = _walk(root, None) if stat.S_ISDIR(status.st_mode) else iter([(root, status)])
    describer = Describer(accounts)
    return (
        describer.describe(path, status)
        for path, status in found
        if not stat.S_ISDIR(status.st_mode) and (glob is None or glob.matches(os.path.basename(path)))
    )


def listing(root: str, depth: int, accounts: Accounts) -> Iterator[FileInfo]:
    """What is below the directory `root`, `depth` levels deep; parents before children, by name. Raises `ApiError`."""
    with reported(root):
        status = os.lstat(root)
    if stat.S_ISLNK(status.st_mode):
        raise ApiError(400, INVALID_REQUEST_BODY, f"{root} is a symbolic link, not a directory")
    if not stat.S_ISDIR(status.st_mode):
        raise ApiError(400, INVALID_REQUEST_BODY, f"{root} is not a directory")
    if depth == 0:
        return iter(())
    with reported(root):
        os.scandir(root).close()
    describer = Describer(accounts)
    return (describer.describe(path, status) for path, status in _walk(root, depth))


def _walk(root: str, depth: int | None) -> Iterator[tuple[str, os.stat_result]]:
    """Entries in order of their names' bytes; what vanishes or cannot be read meanwhile is left out."""
    pending = [_entries(root)]
    while pending:
        entry = next(pending[-1], None)
        if entry is None:
            pending.pop()
            continue
        yield entry
        path, status = entry
        if stat.S_ISDIR(status.st_mode) and (depth is None or len(pending) < depth):
            pending.append(_entries(path))


def _entries(directory: str) -> Iterator[tuple[str, os.stat_result]]:
    try:
        names = sorted(os.listdir(directory), key=os.fsencode)
    except OSError:
        return
    for name in names:
        path = f"{directory.rstrip('/')}/{name}"
        try:
            status = os.lstat(path)
        except OSError:
            continue
        yield path, status


def make_all(changes: dict[str, Change]) -> None:
    """Makes directories by path, one after the other. Raises `ApiError`."""
    for path, change in changes.items():
        make(path, change)


def make(path: str, change: Change) -> None:
    """Like ``mkdir -p``: makes what is missing; `change` is for the last one, and only if it is new."""
    with reported(path), parents_made(path, Change()):
        try:
            os.mkdir(path)
        except FileExistsError:
            if not os.path.isdir(path):
                raise ApiError(409, INVALID_FILE, f"{path} exists and is no directory") from None
            return
        try:
            change.apply(path)
        except OSError:
            os.rmdir(path)
            raise


@contextlib.contextmanager
def parents_made(path: str, change: Change) -> Iterator[None]:
    """Makes the directories above `path` that are missing, with the owner in `change`; they go if what follows fails.

    Raises OSError, `ApiError`.
    """
    made: list[str] = []
    try:
        for directory in _missing_parents(path):
            try:
                os.mkdir(directory)
            except FileExistsError:
                continue  # somebody else was faster
            made.append(directory)
            change.chown(directory)
        yield
    except BaseException:
        for directory in reversed(made):
            with contextlib.suppress(OSError):
                os.rmdir(directory)
        raise


def _missing_parents(path: str) -> list[str]:
    missing: list[str] = []
    parent = os.path.dirname(path)
    while not os.path.isdir(parent):
        if os.path.lexists(parent):
            raise ApiError(400, INVALID_FILE, f"{parent} is not a directory")
        missing.append(parent)
        parent = os.path.dirname(parent)
    return missing[::-1]


def delete_files(paths: list[str]) -> None:
    """Removes files, one after the other. Raises `ApiError`."""
    for path in paths:
        delete_file(path)


def delete_trees(paths: list[str]) -> None:
    """Removes whatever is at the paths, one after the other. Raises `ApiError`."""
    for path in paths:
        delete_tree(path)


def delete_file(path: str) -> None:
    """Removes a file or a link; a missing one is no error. Raises `ApiError`: 400 for a directory."""
    try:
        if stat.S_ISDIR(os.lstat(path).st_mode):
            raise ApiError(400, INVALID_FILE, f"{path} is a directory")
        os.unlink(path)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise failure(error, path) from error


def delete_tree(path: str) -> None:
    """Like ``rm -rf``: files and links too, a missing one is no error. Raises `ApiError`."""
    if path == "/":
        raise ApiError(400, INVALID_REQUEST_BODY, "the root directory cannot be deleted")
    try:
        status = os.lstat(path)
        if stat.S_ISDIR(status.st_mode):
            remove_directory(path)
        else:
            os.unlink(path)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise failure(error, getattr(error, "filename", None) or path) from error


def remove_directory(path: str) -> None:
    """Removes the directory `path` with all that is in it. Raises OSError.

    It holds on to directories by descriptor: a folder that somebody swaps for a link meanwhile is not followed.
    """
    parent = os.open(os.path.dirname(path) or "/", os.O_RDONLY | os.O_DIRECTORY)
    try:
        _remove_at(parent, os.path.basename(path), path)
    finally:
        os.close(parent)


def _remove_at(parent: int, name: str, path: str) -> None:
    stack: list[tuple[int, str, list[str]]] = []
    try:
        stack.append(_opened(parent, name))
        while stack:
            directory, name, directories = stack[-1]
            if directories:
                stack.append(_opened(directory, directories.pop()))
                continue
            os.close(directory)
            stack.pop()
            os.rmdir(name, dir_fd=stack[-1][0] if stack else parent)
    except OSError as error:
        names = "/".join(name for _, name, _ in stack[1:])
        error.filename = f"{path}/{names}" if names else path
        raise
    finally:
        for directory, _, _ in stack:
            os.close(directory)


def _opened(parent: int, name: str) -> tuple[int, str, list[str]]:
    """A directory that holds nothing but the directories that are returned."""
    directory = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
    try:
        directories = []
        with os.scandir(directory) as scan:
            for entry in scan:
                if entry.is_dir(follow_symlinks=False):
                    directories.append(entry.name)
                else:
                    os.unlink(entry.name, dir_fd=directory)
    except OSError as error:
        os.close(directory)
        if error.errno == errno.ENOENT:
            return _opened(parent, name)  # somebody else removes as well
        raise
    return directory, name, directories
