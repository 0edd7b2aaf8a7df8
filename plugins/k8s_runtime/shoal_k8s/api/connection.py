"""Where the API server is, and how to prove who asks: a kubeconfig file, or the pod's service account.

The official client library reads all of it, refreshes tokens that expire and runs credential plugins; requests then go
over its connection pool, without its models: decoding 10,000 objects into those costs minutes and gigabytes.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import structlog
import urllib3
from kubernetes import client, config

from shoal.errors import ConfigError

log = structlog.get_logger("shoal.k8s")


class ApiConnection:
    """One API server and one identity.

    Args:
        kubeconfig: file; None = the one that ``KUBECONFIG`` names, else the pod's service account.
        insecure: do not check the API server's certificate.
        size: connections kept for reuse.

    Raises ConfigError if there is no usable configuration.
    """

    def __init__(self, kubeconfig: str | None, *, insecure: bool = False, size: int = 16) -> None:
        self._configuration = _configuration(kubeconfig)
        self._configuration.connection_pool_maxsize = size
        if insecure:
            self._configuration.verify_ssl = False
        if not self._configuration.verify_ssl:
            log.warning("the API server's certificate is not checked", server=self._configuration.host)
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)  # said once, not for each request
        self._client = client.ApiClient(self._configuration)
        self._pool: urllib3.PoolManager = self._client.rest_client.pool_manager

    @property
    def server(self) -> str:
        """The API server's URL, without credentials."""
        return str(self._configuration.host).rstrip("/")

    def open(
        self, method: str, path: str, *, body: bytes | None, content_type: str, timeout: urllib3.Timeout
    ) -> urllib3.BaseHTTPResponse:
        """Send one request and return its answer, unread. Blocks; raises urllib3's HTTPError.

        The credential is asked for each time, so that a token that was rotated on disk is used at once.
        """
        headers: dict[str, str] = {"Accept": "application/json", "User-Agent": "shoal"}
        if body is not None:
            headers["Content-Type"] = content_type
        self._client.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
        return self._pool.request(
            method,
            self.server + path,
            body=body,
            headers=headers,
            timeout=timeout,
            preload_content=False,
            retries=False,
            redirect=False,
        )

    def close(self) -> None:
        """Drop idle connections."""
        self._pool.clear()


def _configuration(kubeconfig: str | None) -> Any:
    """The library's Configuration object."""
    found = client.Configuration()
    file = kubeconfig or os.environ.get("KUBECONFIG")
    try:
        if file:
            config.load_kube_config(str(Path(file).expanduser()), client_configuration=found)  # type: ignore[no-untyped-call]  # the library has no types here
        else:
            config.load_incluster_config(client_configuration=found)  # type: ignore[no-untyped-call]  # as above
    except Exception as error:  # a bad file ends in whatever its parser raises
        if file:
            where = f"{file} cannot be used ({type(error).__name__})"  # its own words may quote the file, keys and all
        else:
            where = f"neither kubeconfig_path nor KUBECONFIG is set, and as a pod's: {str(error).rstrip('.')}"
        raise ConfigError(f"kubernetes: no usable cluster configuration: {where}") from error
    return found
