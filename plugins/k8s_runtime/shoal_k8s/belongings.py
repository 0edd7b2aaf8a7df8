"""What belongs to a sandbox besides its workload: claims that are made for it, and the secret that its images need."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from msgspec import Struct

from shoal.errors import Conflict, InvalidRequest, Unavailable
from shoal.models import codes
from shoal.models.plan import WorkloadPlan
from shoal.models.requests import ClaimVolume
from shoal_k8s import names
from shoal_k8s.api import KubeApiError, KubeClient, KubeList, Meta, Resource
from shoal_k8s.api.client import STRATEGIC_PATCH
from shoal_k8s.api.failures import API_ERROR
from shoal_k8s.api.objects import KubeStruct, OwnerReference
from shoal_k8s.pods import storage
from shoal_k8s.pods.objects import CLAIMS, SECRETS, PodSpec
from shoal_k8s.pods.secrets import pull_secret, pull_secret_name

MANAGED = f"{names.PREFIX}volume-managed-by"
SERVER = "server"
MADE_FOR = f"{names.PREFIX}created-for"
"""Annotation of every claim that was made for a sandbox, also of those that outlive it."""


class BelongingObject(KubeStruct):
    metadata: Meta


class Made(Struct, frozen=True):
    """What may have been made for a sandbox."""

    secret: bool
    claims: bool


def _planned(plan: WorkloadPlan) -> Made:
    return Made(secret=pull_secret(plan) is not None, claims=any(volume.pvc is not None for volume in plan.volumes))


def _seen(sandbox_id: str, spec: PodSpec) -> Made:
    """By what its pod uses: an object that was changed since still owns the rest, and the cluster removes that."""
    secret = any(each.name == pull_secret_name(sandbox_id) for each in spec.image_pull_secrets)
    return Made(secret=secret, claims=any(each.persistent_volume_claim is not None for each in spec.volumes))


class Belongings:
    """Made before the workload, so that its first pull finds the secret; owned by it afterwards; removed with it."""

    def __init__(self, client: KubeClient, namespace: str, default_size: str) -> None:
        self._client = client
        self._namespace = namespace
        self._default_size = default_size
        self._made: dict[str, Made] = {}

    async def prepare(self, plan: WorkloadPlan) -> None:
        """Makes the claims and secret that are missing. Raises Conflict, InvalidRequest, Unavailable, KubeApiError."""
        self._made[plan.id] = _planned(plan)
        claims = {volume.pvc.claim_name: volume.pvc for volume in reversed(plan.volumes) if volume.pvc is not None}
        wanted = [self._prepare_claim(claim, plan.id) for claim in claims.values()]
        secret = pull_secret(plan)
        if secret is not None:
            body = {"metadata": {"name": pull_secret_name(plan.id), "labels": {names.ID: plan.id}}, **secret}
            wanted.append(self._create(SECRETS, body))
        for outcome in await asyncio.gather(*wanted, return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome

    async def hand_over(self, plan: WorkloadPlan, owner: OwnerReference) -> None:
        """From now on the cluster removes them with their owner."""
        reference = {"metadata": {"ownerReferences": [owner]}}
        if pull_secret(plan) is not None:
            await self._patch(SECRETS, pull_secret_name(plan.id), reference)
        for claim in storage.claims_to_make(plan.volumes):
            if claim.delete_on_sandbox_termination and await self._made_for(claim.claim_name, plan.id):
                await self._patch(CLAIMS, claim.claim_name, reference)
        self._made.pop(plan.id, None)  # from now on its object says it

    def note(self, sandbox_id: str, spec: PodSpec | None) -> None:
        """Before a removal: what its object says was made for it, so that nothing else is asked for."""
        if spec is not None:
            self._made.setdefault(sandbox_id, _seen(sandbox_id, spec))

    async def remove(self, sandbox_id: str) -> None:
        """What a sandbox leaves behind; absent is success. Where nobody knows what was made, all is looked for."""
        made = self._made.get(sandbox_id, Made(secret=True, claims=True))
        if made.claims:
            await self._remove_claims(sandbox_id)
        if made.secret:
            await self._delete(SECRETS, pull_secret_name(sandbox_id))
        self._made.pop(sandbox_id, None)

    async def _remove_claims(self, sandbox_id: str) -> None:
        ours = {"labelSelector": f"{names.ID}={sandbox_id},{MANAGED}={SERVER}"}
        claims = await self._client.list(CLAIMS, self._namespace, KubeList[BelongingObject], ours)
        for claim in claims.items or []:
            await self._delete(CLAIMS, claim.metadata.name)

    async def _prepare_claim(self, claim: ClaimVolume, sandbox_id: str) -> None:
        held = await self._claim(claim.claim_name)
        if held is None and claim.create_if_not_exists:
            held = await self._make_claim(claim, sandbox_id)
        labels = {} if held is None else held.metadata.labels
        if labels.get(MANAGED) == SERVER and labels.get(names.ID) != sandbox_id:
            raise Conflict(codes.INVALID_PARAMETER, f"The claim {claim.claim_name!r} belongs to another sandbox.")

    async def _made_for(self, name: str, sandbox_id: str) -> bool:
        claim = await self._claim(name)
        return claim is not None and claim.metadata.labels.get(names.ID) == sandbox_id

    async def _claim(self, name: str) -> BelongingObject | None:
        try:
            return await self._client.get(CLAIMS, self._namespace, name, BelongingObject)
        except KubeApiError as error:
            if error.not_found:
                return None
            raise

    async def _make_claim(self, claim: ClaimVolume, sandbox_id: str) -> BelongingObject:
        """The new claim, or that of somebody who was faster."""
        body = self._claim_body(claim, sandbox_id)
        try:
            return await self._client.create(CLAIMS, self._namespace, body, BelongingObject)
        except KubeApiError as error:
            if error.status in (400, 422):
                said = f"The claim {claim.claim_name!r} is refused: {error.said}"
                raise InvalidRequest(codes.INVALID_PARAMETER, said) from error
            if not error.exists:
                raise
        held = await self._claim(claim.claim_name)
        if held is None:
            raise Unavailable(API_ERROR, f"The claim {claim.claim_name!r} comes and goes; try again.")
        return held

    def _claim_body(self, claim: ClaimVolume, sandbox_id: str) -> dict[str, Any]:
        """Labelled, and so removed with the sandbox, only where that is wanted; what it was made for stands in any."""
        labels = {MANAGED: SERVER, names.ID: sandbox_id} if claim.delete_on_sandbox_termination else {}
        spec: dict[str, Any] = {
            "accessModes": claim.access_modes or ["ReadWriteOnce"],
            "resources": {"requests": {"storage": claim.storage or self._default_size}},
        }
        if claim.storage_class is not None:
            spec["storageClassName"] = claim.storage_class
        metadata = {"name": claim.claim_name, "labels": labels, "annotations": {MADE_FOR: sandbox_id}}
        return {"metadata": metadata, "spec": spec}

    async def _create(self, resource: Resource, body: dict[str, Any]) -> None:
        try:
            await self._client.create(resource, self._namespace, body, msgspec.Raw)
        except KubeApiError as error:
            if not error.exists:
                raise

    async def _patch(self, resource: Resource, name: str, body: dict[str, Any]) -> None:
        await self._client.patch(resource, self._namespace, name, body, msgspec.Raw, content_type=STRATEGIC_PATCH)

    async def _delete(self, resource: Resource, name: str) -> None:
        try:
            await self._client.delete(resource, self._namespace, name)
        except KubeApiError as error:
            if not error.not_found:
                raise
