"""Texts of what a create and a renewal may say."""

from __future__ import annotations

from typing import Final

from shoal.web.descriptions.text import Schemas, text, time_text

_AMOUNTS = "Quantities by resource: `cpu`, `memory`, `gpu` and others that the runtime knows."
_MODES = text("Access modes of a claim that is created.", ["ReadWriteOnce"])
_COMMAND = text("Program and arguments; at least one item.", ["python", "-m", "http.server", "8000"])
_ENV = text("Environment variables by name.", {"LANG": "C.UTF-8"})
_QUOTA: Final = {"cpu": "500m", "memory": "512Mi"}

CREATE: Final[Schemas] = {
    "CreateSandbox": (
        "A sandbox to create. Give exactly one of `image`, `snapshotId` and `templateId`, unless a pool is named.",
        {
            "image": "Image to start from.",
            "snapshotId": "Snapshot to start from, instead of an image.",
            "templateId": "Template to start from. No runtime here has templates.",
            "timeout": text("Life in seconds, from acceptance; at least 60. Absent: until it is deleted.", 600),
            "resourceLimits": text(_AMOUNTS, _QUOTA),
            "resourceRequests": text(f"Amounts to reserve; limits where absent. {_AMOUNTS}", _QUOTA),
            "env": text("Environment variables by name; null removes one that the image sets.", {"LANG": "C.UTF-8"}),
            "metadata": text("Labels of the caller's own, by which lists are filtered.", {"team": "web"}),
            "entrypoint": _COMMAND,
            "platform": "Operating system and architecture; that of the engine where absent.",
            "networkPolicy": "What the sandbox may reach; everything where absent.",
            "credentialProxy": "Proxy that adds stored credentials to requests of the sandbox.",
            "secureAccess": "Whether requests to its ports need an access token, which endpoints hold.",
            "volumes": "Volumes to mount; names are unique.",
            "sidecars": "Containers beside the sandbox, in its network.",
            "lifecycle": "Commands to run before and beside the sandbox's own.",
            "extensions": text("Options of runtimes and plugins by name.", {"poolRef": "warm"}),
        },
    ),
    "ImageSpec": (
        "An image and how to pull it.",
        {"uri": text("Name of the image, as the runtime understands it.", "python:3.13-slim"), "auth": "Credentials."},
    ),
    "ImageAuth": (
        "Credentials of a registry. They serve this create only and are never returned.",
        {"username": "User name.", "password": "Password or token."},
    ),
    "PlatformSpec": (
        "Operating system and architecture.",
        {"os": text("`linux` or `windows`.", "linux"), "arch": text("`amd64` or `arm64`.", "amd64")},
    ),
    "NetworkPolicy": (
        "Rules for outgoing traffic.",
        {
            "defaultAction": text("`allow` or `deny`, for what no rule names; `deny` where absent.", "deny"),
            "egress": "Rules, in order.",
        },
    ),
    "NetworkRule": (
        "A rule for one target.",
        {
            "action": text("`allow` or `deny`.", "allow"),
            "target": text("Domain, wildcard, address or range.", "*.example.org", "192.0.2.0/24"),
        },
    ),
    "CredentialProxy": ("Settings of the credential proxy.", {"enabled": "Whether it runs; needs a network policy."}),
    "SidecarSpec": (
        "A container beside the sandbox. It shares the sandbox's network, and lives and ends with it.",
        {
            "name": text("DNS label, unique in the request.", "cache"),
            "image": "Image of the sidecar.",
            "command": "Program and arguments; those of the image where absent.",
            "env": _ENV,
            "ports": text("Ports that it listens on; no two sidecars share one.", [6379]),
            "resourceLimits": text(_AMOUNTS, _QUOTA),
        },
    ),
    "Volume": (
        "A volume to mount. Give exactly one of `host`, `pvc` and `ossfs`.",
        {
            "name": text("DNS label, unique in the request.", "data"),
            "mountPath": text("Absolute path in the sandbox.", "/data"),
            "readOnly": "Whether the sandbox can only read it.",
            "subPath": "Path in the volume to mount instead of its root.",
            "host": "A directory of the machine.",
            "pvc": "A named volume: a claim on Kubernetes, a volume on Docker.",
            "ossfs": "A bucket of an object store.",
        },
    ),
    "HostVolume": (
        "A directory of the machine that runs the sandbox.",
        {"path": text("Absolute path, at or below a directory that the server allows.", "/srv/data")},
    ),
    "ClaimVolume": (
        "A named volume: a claim on Kubernetes, a volume on Docker.",
        {
            "claimName": text("Name of the claim or volume.", "data"),
            "createIfNotExists": "Whether it is created where it is missing.",
            "deleteOnSandboxTermination": "Whether one that was created for this sandbox is deleted with it.",
            "storageClass": "Storage class of a claim that is created.",
            "storage": text("Size of a claim that is created, in bytes, with a binary suffix or without.", "10Gi"),
            "accessModes": _MODES,
        },
    ),
    "OssVolume": (
        "A bucket of an object store, mounted by ossfs.",
        {
            "bucket": "Name of the bucket, 3 to 63 characters.",
            "endpoint": "Address of the object store.",
            "version": "Major version of ossfs.",
            "options": "Options for ossfs.",
            "accessKeyId": "Identifier of the access key.",
            "accessKeySecret": "Secret of the access key. It is never returned.",
        },
    ),
    "LifecycleHooks": (
        "Commands besides the sandbox's own.",
        {"preStart": "Command to run before the sandbox's own.", "periodic": "Commands to run on a schedule."},
    ),
    "LifecycleHook": (
        "A command that runs before the sandbox's own.",
        {"command": _COMMAND, "timeoutSeconds": "Seconds until it is ended, 1 to 10800."},
    ),
    "PeriodicHook": (
        "A command that runs on a schedule.",
        {
            "name": "Name, unique in the request.",
            "schedule": text("Schedule in cron's notation.", "*/5 * * * *"),
            "command": _COMMAND,
            "timeoutSeconds": "Seconds until a run is ended, 1 to 300.",
        },
    ),
    "RenewExpiration": (
        "An expiry.",
        {"expiresAt": time_text("When the sandbox expires. A time without a zone is UTC.")},
    ),
}
