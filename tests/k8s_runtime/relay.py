"""A TCP relay in front of the API server, so that a test can cut its connections and count its requests."""

from __future__ import annotations

import asyncio
import os
import ssl
from pathlib import Path
from types import TracebackType
from urllib.parse import urlsplit

import kubernetes.client
import kubernetes.config


def of_kubeconfig() -> kubernetes.client.Configuration:
    """Where ``KUBECONFIG`` leads, and as whom."""
    configuration = kubernetes.client.Configuration()
    kubernetes.config.load_kube_config(os.environ["KUBECONFIG"], client_configuration=configuration)  # type: ignore[no-untyped-call]  # no types there
    return configuration


class Relay:
    """Listens on loopback without TLS, speaks TLS to the API server with the credentials of a kubeconfig.

    Attributes:
        token: what clients must send, if the API server wants a token.
        requests: request lines seen, in order.
        refusing: while True, connections are refused as those of a dead server are.
    """

    def __init__(self, configuration: kubernetes.client.Configuration) -> None:
        url = urlsplit(configuration.host)
        self._target = (url.hostname or "", url.port or 443)
        self._tls = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
        self._tls.check_hostname = False
        if not configuration.verify_ssl:
            self._tls.verify_mode = ssl.CERT_NONE
        if configuration.cert_file:
            self._tls.load_cert_chain(configuration.cert_file, configuration.key_file)
        token = configuration.get_api_key_with_prefix("BearerToken", alias="authorization") or ""
        self.token = token.removeprefix("Bearer ")
        self.requests: list[str] = []
        self.refusing = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server

    async def __aenter__(self) -> Relay:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        self.cut()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def kubeconfig(self, place: Path) -> Path:
        """A file by which one reaches the API server over this relay."""
        file = place / "kubeconfig"
        file.write_text(
            f"""
apiVersion: v1
kind: Config
clusters: [{{name: c, cluster: {{server: "{self.url}"}}}}]
users: [{{name: u, user: {{token: "{self.token}"}}}}]
contexts: [{{name: x, context: {{cluster: c, user: u}}}}]
current-context: x
"""
        )
        return file

    def cut(self) -> None:
        """Drop every connection, as a network or a dying server does."""
        for writer in list(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refusing:
            writer.transport.abort()
            return
        try:
            upstream, onward = await asyncio.open_connection(*self._target, ssl=self._tls)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, onward}
        try:
            await asyncio.gather(self._pump(reader, onward, note=True), self._pump(upstream, writer, note=False))
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            for end in (writer, onward):
                self._writers.discard(end)
                end.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, note: bool) -> None:
        while chunk := await reader.read(65536):
            if note and b" HTTP/1.1\r\n" in chunk:
                self.requests.append(chunk.split(b"\r\n", 1)[0].decode())
            writer.write(chunk)
            await writer.drain()
        writer.transport.abort()
