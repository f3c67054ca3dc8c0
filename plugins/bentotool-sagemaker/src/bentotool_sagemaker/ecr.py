"""Images in Amazon ECR: the login, the repository, and a manifest in the form that SageMaker takes.

SageMaker refuses manifests of OCI media types and takes those of Docker (Image Manifest Version 2, Schema 2). The two
differ in the media types alone: configuration and layers are the same blobs. So what was pushed stays, and beside it a
manifest is put that names the same blobs.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from typing import Any

import botocore.exceptions as failures

from bentotool.errors import NotFoundError, UsageError
from bentotool.interfaces import Credentials
from bentotool_sagemaker.cloud import Cloud, explained, is_code
from bentotool_sagemaker.names import EcrPlace, ecr_place

__all__ = ["docker_manifest", "ensure_repository", "login", "split_reference", "usable_image"]

_DOCKER = "application/vnd.docker.distribution.manifest.v2+json"
_DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
_OCI = "application/vnd.oci.image.manifest.v1+json"
_OCI_INDEX = "application/vnd.oci.image.index.v1+json"
_CONFIGS = {"application/vnd.oci.image.config.v1+json": "application/vnd.docker.container.image.v1+json"}
_LAYERS = {
    "application/vnd.oci.image.layer.v1.tar": "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.oci.image.layer.v1.tar+gzip": "application/vnd.docker.image.rootfs.diff.tar.gzip",
}
_DEPTH = 3


def login(registry: str) -> Credentials | None:
    """Credentials for a registry of ECR, good for twelve hours; None where AWS has none here.

    Raises:
        AuthenticationError, RemoteError: AWS refuses, or does not answer.
    """
    place = ecr_place(registry)
    if place is None:
        return None
    with explained(f"log in to {registry}"):
        try:
            answer = Cloud(place.region).client("ecr").get_authorization_token(registryIds=[place.account])
        except failures.NoCredentialsError:  # a login that Docker has may do
            return None
        token = base64.b64decode(answer["authorizationData"][0]["authorizationToken"]).decode()
    user, _, password = token.partition(":")
    return Credentials(user, password)


def split_reference(reference: str) -> tuple[str, str, str]:
    """Host, repository and ``sha256:…`` or tag of an image reference.

    Raises:
        UsageError: it is none that names a registry.
    """
    host, slash, rest = reference.partition("/")
    path, at, digest = rest.partition("@")
    name, colon, tag = path.partition(":")
    if not slash or not name or not host or (at and not digest):
        raise UsageError(
            f"{reference[:200]!r} is no image in a registry", hint="ACCOUNT.dkr.ecr.REGION.amazonaws.com/NAME:TAG"
        )
    return host, name, digest or (tag if colon else "latest")


def ensure_repository(cloud: Cloud, place: EcrPlace, name: str, note: Callable[[str], None]) -> None:
    """Make a repository of ECR where it is not there: ECR makes none when something is pushed.

    Raises:
        AuthenticationError: it may not be made.
    """
    client = cloud.client("ecr", place.region)
    with explained(f"look for the repository {name}"):
        try:
            client.describe_repositories(registryId=place.account, repositoryNames=[name])
            return
        except failures.ClientError as error:
            if not is_code(error, "RepositoryNotFoundException"):
                raise
    note(f"make the repository {name} in ECR")
    with explained(f"make the repository {name}"):
        try:
            client.create_repository(registryId=place.account, repositoryName=name)
        except failures.ClientError as error:
            if not is_code(error, "RepositoryAlreadyExistsException"):
                raise


def usable_image(cloud: Cloud, reference: str, platform: str) -> str:
    """The reference, by digest, of an image in the form that SageMaker takes; one that is in no ECR as it is.

    Raises:
        NotFoundError: ECR has no such image, or none for the platform.
        UsageError: it has layers that the other form has no name for.
    """
    host, repository, what = split_reference(reference)
    place = ecr_place(host)
    if place is None:
        return reference
    client = cloud.client("ecr", place.region)
    kind, text, digest = _manifest(client, place, repository, what)
    for _ in range(_DEPTH):
        if kind not in (_OCI_INDEX, _DOCKER_LIST):
            break
        kind, text, digest = _manifest(client, place, repository, _of_platform(text, platform, reference))
    if kind != _DOCKER:
        digest = _put(client, place, repository, docker_manifest(text, reference), platform)
    return f"{host}/{repository}@{digest}"


def _manifest(client: Any, place: EcrPlace, repository: str, what: str) -> tuple[str, str, str]:
    """Media type, text and digest of a manifest."""
    identity = {"imageDigest": what} if what.startswith("sha256:") else {"imageTag": what}
    with explained(f"look for image {repository} {what} in ECR"):
        answer = client.batch_get_image(
            registryId=place.account, repositoryName=repository, imageIds=[identity],
            acceptedMediaTypes=[_DOCKER, _OCI, _OCI_INDEX, _DOCKER_LIST],
        )  # fmt: skip
    found = next(iter(answer.get("images") or ()), None)
    if found is None:
        raise NotFoundError(f"ECR has no image {what} in {repository}", hint="push it first, or leave --image out")
    text = str(found["imageManifest"])
    kind = str(found.get("imageManifestMediaType") or json.loads(text).get("mediaType") or "")
    return kind, text, str(found["imageId"]["imageDigest"])


def _of_platform(text: str, platform: str, reference: str) -> str:
    system, _, architecture = platform.partition("/")
    for each in json.loads(text).get("manifests") or ():
        named = each.get("platform") or {}
        images = each.get("mediaType") in (_OCI, _DOCKER, _OCI_INDEX, _DOCKER_LIST) and not each.get("artifactType")
        if images and (named.get("os"), named.get("architecture")) == (system, architecture):
            return str(each["digest"])
    raise NotFoundError(
        f"{reference} has no image for {platform}", hint="another --instance-type, or build for that platform"
    )


def docker_manifest(text: str, reference: str) -> str:
    """An OCI image manifest as one of Docker, of the same blobs.

    Raises:
        UsageError: it is no image, or has layers that only OCI knows, such as those compressed with zstd.
    """
    document: dict[str, Any] = json.loads(text)
    try:
        config, layers = document["config"], document["layers"]
        kinds = [(_CONFIGS, config), *((_LAYERS, layer) for layer in layers)]
        for known, each in kinds:
            if each["mediaType"] not in {*known, *known.values()}:
                raise UsageError(
                    f"{reference}: SageMaker takes no {str(each['mediaType'])[:120]}", hint="layers as tar or tar+gzip"
                )
        named = [
            {
                "mediaType": known.get(each["mediaType"], each["mediaType"]),
                "size": each["size"],
                "digest": each["digest"],
            }
            for known, each in kinds
        ]
    except (KeyError, TypeError):
        raise UsageError(f"{reference} is no container image") from None
    made = {"schemaVersion": 2, "mediaType": _DOCKER, "config": named[0], "layers": named[1:]}
    return json.dumps(made, separators=(",", ":"))


def _put(client: Any, place: EcrPlace, repository: str, text: str, platform: str) -> str:
    """Put a manifest; its digest. It has a tag: what has none is what lifecycle rules take away first."""
    digest = "sha256:" + hashlib.sha256(text.encode()).hexdigest()
    tag = f"sagemaker-{platform.rpartition('/')[2]}-{digest[7:19]}"
    with explained(f"put a manifest for SageMaker into {repository}"):
        try:
            client.put_image(
                registryId=place.account,
                repositoryName=repository,
                imageManifest=text,
                imageManifestMediaType=_DOCKER,
                imageTag=tag,
                imageDigest=digest,
            )
        except failures.ClientError as error:
            if not is_code(error, "ImageAlreadyExistsException", "ImageTagAlreadyExistsException"):
                raise
    return digest
