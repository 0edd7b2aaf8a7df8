"""What a pool's pod template that comes through the API may ask for.

Such a template is a caller's, and becomes pods with this server's rights. It is walked field by field along an
allow-list: the level "baseline" of the Pod Security Standards, and of what that level leaves open only what reaches no
other object of the namespace and no node of the caller's choice. The operator's ``[kubernetes.pool_templates]`` and
``storage.allowed_host_paths`` permit more. Pools that an operator makes on the cluster are not looked at.

::

    rules   what a value may be: an object with known fields, a list, one of several words, a permitted name
    fields  the fields of a pod template, each with its rule
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from shoal.errors import InvalidRequest
from shoal.models import codes
from shoal_k8s.config import PoolTemplateSettings
from shoal_k8s.pools.template.fields import TEMPLATE
from shoal_k8s.pools.template.rules import Permits, walk


class TemplatePolicy(Struct, frozen=True):
    """What the operator permits.

    Attributes:
        host_paths: prefixes of the nodes' paths that a template may mount.
        runtime_class: the RuntimeClass of sandboxes; a template may name it, and gets it if it names none.
    """

    settings: PoolTemplateSettings
    host_paths: Sequence[str] = ()
    runtime_class: str | None = None

    def check(self, template: Mapping[str, Any]) -> None:
        """Raise InvalidRequest that names the first field that is not allowed, by its path."""
        spec = template.get("spec")
        if not isinstance(spec, dict) or not spec.get("containers"):
            message = "template.spec.containers is needed: a pool on Kubernetes is made of a pod template."
            raise InvalidRequest(codes.INVALID_PARAMETER, message)
        walk("template", template, TEMPLATE, self._permits())

    def completed(self, template: Mapping[str, Any]) -> dict[str, Any]:
        """The template with what sandboxes have anyway: no token of a service account, and the RuntimeClass."""
        spec = dict(template["spec"])
        spec.setdefault("automountServiceAccountToken", False)
        if self.runtime_class is not None:
            spec.setdefault("runtimeClassName", self.runtime_class)
        return {**template, "spec": spec}

    def _permits(self) -> Permits:
        given = self.settings
        classes = [*given.runtime_classes, *([self.runtime_class] if self.runtime_class else [])]
        names = {
            "capabilities": given.capabilities,
            "claims": given.claims,
            "config_maps": given.config_maps,
            "metadata": given.metadata,
            "priority_classes": given.priority_classes,
            "runtime_classes": classes,
            "secrets": given.secrets,
            "service_accounts": given.service_accounts,
        }
        return Permits(names, frozenset(given.fields), self.host_paths)
