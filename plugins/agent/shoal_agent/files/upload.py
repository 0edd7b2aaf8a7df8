"""An upload: parts are staged as they arrive, and take their places once all of them have."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable
from typing import Any

from shoal_agent.accounts import Accounts
from shoal_agent.files import multipart, permissions
from shoal_agent.files.failures import failure
from shoal_agent.files.permissions import Change
from shoal_agent.files.staging import Spool, Staged
from shoal_agent.http.errors import INVALID_FILE, INVALID_FILE_CONTENT, INVALID_FILE_METADATA, ApiError
from shoal_agent.http.fields import Fields
from shoal_agent.paths import Paths

MAX_METADATA = 1024 * 1024
"""Bytes of one `metadata` part."""
MAX_OPEN = 64
"""Files of one upload that are kept open until its end."""


class _Item:
    """One file of the upload. Its content waits in the spool as long as its metadata has not come."""

    def __init__(self) -> None:
        self.path = ""
        self.change: Change | None = None
        self.staged: Staged | None = None
        self.start = 0
        self.length = 0
        self.refused: ApiError | None = None

    def write(self, data: bytes, spool: Spool) -> None:
        if self.refused is not None:
            return  # the rest of a file that cannot be stored is read and thrown away
        try:
            if self.staged is None:
                spool.write(data)
                self.length += len(data)
            else:
                self.staged.write(data)
        except OSError as error:
            self.refuse(error)

    def refuse(self, error: OSError) -> None:
        self.discard()
        self.refused = failure(error, self.path or "the upload")

    def commit(self, spool: Spool) -> None:
        """Raises `ApiError`."""
        if self.refused is not None:
            raise self.refused
        change = self.change or Change()
        try:
            if self.staged is None:
                self.staged = Staged(self.path)
                self.staged.adopt(spool, self.start, self.length)
            self.staged.commit(change, Change(uid=change.uid, gid=change.gid))
        except OSError as error:
            raise failure(error, self.path) from error

    def discard(self) -> None:
        if self.staged is not None:
            self.staged.discard()


class Upload:
    """Fed with the blocks of a body, in threads; one at a time."""

    def __init__(self, content_type: str | None, paths: Paths, accounts: Accounts) -> None:
        """Raises `ApiError` 400 INVALID_FILE."""
        self._parser = multipart.Parser(multipart.boundary(content_type))
        self._paths = paths
        self._accounts = accounts
        self._spool = Spool()
        self._items: list[_Item] = []
        self._metadata = 0
        self._files = 0
        self._part = ""
        self._text: list[bytes] = []
        self._invalid: ApiError | None = None
        self._lock = threading.Lock()
        self._closed = False

    def feed(self, blocks: Iterable[bytes]) -> None:
        """Raises `ApiError` 400 INVALID_FILE for a body that is no form."""
        with self._lock:
            for block in blocks:
                if not self._closed:
                    self._handle(self._parser.feed(block))

    def finish(self, blocks: Iterable[bytes]) -> None:
        """The last blocks. Writes the files in their order and stops at the first error. Raises `ApiError`."""
        self.feed(blocks)
        with self._lock:
            if self._closed:
                return
            self._parser.close()
            self._check()
            for item in self._items:
                item.commit(self._spool)

    def close(self) -> None:
        """Frees what has not been written. May be called from any thread, and again."""
        with self._lock:
            self._closed = True
            self._spool.discard()
            for item in self._items:
                item.discard()

    def _check(self) -> None:
        if not self._metadata:
            raise ApiError(400, INVALID_FILE_METADATA, "the form has no part metadata with a filename")
        if not self._files:
            raise ApiError(400, INVALID_FILE_CONTENT, "the form has no part file with a filename")
        if self._metadata != self._files:
            raise ApiError(400, INVALID_FILE, f"the form has {self._metadata} metadata and {self._files} file parts")
        if self._invalid is not None:
            raise self._invalid

    def _handle(self, events: list[multipart.Event]) -> None:
        for event in events:
            if isinstance(event, multipart.Data):
                self._content(event.data)
            elif isinstance(event, multipart.Begin):
                self._begin(event)
            elif self._part == "metadata":
                self._describe(b"".join(self._text))
            elif self._part == "file":
                self._end_file(self._item(self._files))

    def _begin(self, event: multipart.Begin) -> None:
        self._part = event.name if event.filename and event.name in ("metadata", "file") else ""
        if self._part == "metadata":
            self._metadata += 1
            self._text = []
        elif self._part == "file":
            self._files += 1
            self._open_file(self._item(self._files))

    def _open_file(self, item: _Item) -> None:
        try:
            if item.change is None:
                item.start = self._spool.size
            else:
                item.staged = Staged(item.path)
        except OSError as error:
            item.refuse(error)

    def _end_file(self, item: _Item) -> None:
        if self._files > MAX_OPEN and item.staged is not None:
            try:
                item.staged.park()
            except OSError as error:
                item.refuse(error)

    def _item(self, number: int) -> _Item:
        while len(self._items) < number:
            self._items.append(_Item())
        return self._items[number - 1]

    def _content(self, data: bytes) -> None:
        if self._part == "file":
            self._item(self._files).write(data, self._spool)
        elif self._part == "metadata":
            self._text.append(data)
            if sum(map(len, self._text)) > MAX_METADATA:
                raise ApiError(400, INVALID_FILE_METADATA, f"a metadata part is larger than {MAX_METADATA} bytes")

    def _describe(self, text: bytes) -> None:
        """What a metadata part says. A bad one is an error at the end of the body, and nothing is written."""
        item = self._item(self._metadata)
        try:
            fields = Fields(_json(text), "the metadata")
            path = fields.text("path", "")
            if path.endswith("/"):
                raise ApiError(400, INVALID_FILE_METADATA, f"the path {path!r} names a directory")
            item.path = self._paths.resolve(path, INVALID_FILE_METADATA)
            item.change = permissions.parse(fields, self._accounts, INVALID_FILE_METADATA)
        except ApiError as error:
            self._invalid = self._invalid or ApiError(400, INVALID_FILE_METADATA, error.message)


def _json(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ApiError(400, INVALID_FILE_METADATA, f"the metadata is not JSON: {error}") from None
