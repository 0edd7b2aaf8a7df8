"""Configurations of every release of opensandbox-server: each key is read, or known as retired and a warning."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from structlog.testing import capture_logs

from shoal.app import Shoal
from shoal.config.loader import Loaded
from shoal.errors import ConfigError
from shoal.plugin.manager import PluginManager

DOCKER = """
[server]
host = "127.0.0.1"
port = 8080
log_level = "INFO"
api_key = "secret"
eip = "sandboxes.example.com"
max_sandbox_timeout_seconds = 86400
timeout_keep_alive = 30
timeout_graceful_shutdown = 5
limit_concurrency = 0
backlog = 2048
thread_pool_size = 200
loop = "auto"
http = "auto"
[log]
level = "INFO"
file_enabled = false
file_path = "/tmp/server.log"
access_file_path = "/tmp/access.log"
file_max_bytes = 1000
file_backup_count = 1
[proxy]
resolve_internal = true
[runtime]
type = "docker"
execd_image = "execd"
execd_run_as_init = false
egress_image = "egress"
[docker]
network_mode = "host"
api_timeout = 180
host_ip = "127.0.0.1"
drop_capabilities = []
no_new_privileges = true
apparmor_profile = ""
seccomp_profile = ""
pids_limit = 512
port_range_min = 40000
port_range_max = 60000
publish_host = "0.0.0.0"
sandbox_env = { A = "b" }
sandbox_binds = []
[egress]
image = "egress"
mode = "dns"
disable_ipv6 = true
readiness_timeout_seconds = 30
otlp_endpoint = ""
[storage]
allowed_host_paths = []
volume_default_size = "1Gi"
ossfs_mount_root = "/mnt/ossfs"
[store]
type = "sqlite"
path = "/tmp/x.db"
[renew_intent]
enabled = false
min_interval_seconds = 60
redis.enabled = false
redis.dsn = "redis://127.0.0.1:6379/0"
redis.queue_key = "opensandbox:renew:intent"
redis.consumer_concurrency = 8
[secure_runtime]
type = ""
[ingress]
mode = "direct"
[router]
wildcard-domain = "*.example.com"
[otel]
enabled = true
endpoint = "http://127.0.0.1:4318"
service_name = "server"
export_interval_millis = 60000
"""
KUBERNETES = """
[server]
api_key = "secret"
[runtime]
type = "kubernetes"
execd_image = "execd"
[kubernetes]
kubeconfig_path = ""
insecure_skip_tls_verify = false
namespace = "opensandbox"
service_account = "sandbox"
informer_enabled = true
informer_resync_seconds = 300
informer_watch_timeout_seconds = 60
read_qps = 0
read_burst = 0
write_qps = 0
write_burst = 0
workload_provider = "agent-sandbox"
sandbox_create_timeout_seconds = 60
sandbox_create_poll_interval_seconds = 1.0
pool_acquisition_timeout_seconds = 30
snapshot_create_timeout_seconds = 300
image_pull_policy = "IfNotPresent"
execd_init_resources = { limits = { cpu = "100m" }, requests = { cpu = "50m" } }
fastpath_endpoint = "a:1"
fastpath_timeout_seconds = 30
fastpath_wait_ready_seconds = 30
fastpath_resource_pool = "default-pool"
template_s3_publish_secret = "secret"
[agent_sandbox]
shutdown_policy = "Delete"
ingress_enabled = true
[ingress]
mode = "gateway"
gateway.address = "*.example.com"
gateway.route.mode = "wildcard"
[ingress.secure_access]
active_key = "a"
keys = [{ key_id = "a", key = "a2V5" }]
[egress]
image = "egress"
mode = "dns+nft"
requests = { cpu = "50m" }
limits = { cpu = "100m" }
[egress.upstream_proxy]
url = "http://proxy.example.com:3128"
"""


@pytest.fixture(autouse=True)
def no_key_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENSANDBOX_SERVER_API_KEY", raising=False)


def warnings(text: str) -> list[str]:
    return sorted(warning.partition(":")[0] for warning in PluginManager(Loaded(raw=tomllib.loads(text))).warnings)


def test_every_key_of_a_docker_configuration_starts() -> None:
    assert warnings(DOCKER) == ["[otel]", "[router]", "runtime.egress_image", "server.log_level"]


def test_every_key_of_a_kubernetes_configuration_starts() -> None:
    assert warnings(KUBERNETES) == [
        "kubernetes.informer_enabled",
        "kubernetes.service_account",
        "kubernetes.snapshot_create_timeout_seconds",
    ]


@pytest.mark.parametrize("section", ["docker", "kubernetes", "agent_sandbox"])
def test_a_section_of_a_runtime_that_is_not_in_use_is_a_warning(section: str) -> None:
    assert warnings(f"[runtime]\ntype = 'local'\n[{section}]\nx = 1\n") == [f"[{section}]"]


@pytest.mark.parametrize("kind", ["docker", "kubernetes"])
def test_the_local_section_too(kind: str) -> None:
    assert warnings(f"[runtime]\ntype = '{kind}'\n[local]\n") == ["[local]"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[tenants]\nprovider = 'file'\n", r"\[tenants\]: .*guards access"),
        ("[secure_runtime]\ntype = 'gvisor'\n", r"\[secure_runtime\]: belongs to the plugin"),
        ("[engine]\nprovision_attempts = 5\n", r"\[engine\]: renamed: write \[lifecycle\]"),
        ("[auth]\nmode = 'x'\n", r"\[auth\]: no enabled plugin owns this section"),
    ],
)
def test_what_guards_something_is_never_ignored(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        PluginManager(Loaded(raw=tomllib.loads(text)))


async def test_a_start_logs_each_warning_once(tmp_path: Any) -> None:
    text = f"[server]\nhost = '127.0.0.1'\nlog_level = 'INFO'\n[store]\npath = '{tmp_path}/x.db'\n[otel]\n[docker]\n"
    app = Shoal(Loaded(raw=tomllib.loads(text)), environ={})
    with capture_logs() as logged:
        await app.start()
        await app.stop()
    told = [entry["event"] for entry in logged if "ignored" in entry["event"]]
    assert sorted(line.partition(":")[0] for line in told) == ["[docker]", "[otel]", "server.log_level"]
