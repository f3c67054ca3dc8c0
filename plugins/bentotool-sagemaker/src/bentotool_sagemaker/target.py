"""The target ``sagemaker``: an endpoint that answers with a Bento."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from bentotool.errors import ConflictError, NotFoundError, RemoteError, UsageError
from bentotool.interfaces import JSON
from bentotool.targetspec import DeployBento, Deployment, DeployOptions, Plan, PlannedResource
from bentotool_sagemaker.cloud import Cloud, explained
from bentotool_sagemaker.ecr import ensure_repository, split_reference, usable_image
from bentotool_sagemaker.logs import lines
from bentotool_sagemaker.names import DEPLOYMENT, ecr_place, number_of, platform_of, resource_name
from bentotool_sagemaker.spec import (
    BENTO,
    DIGEST,
    UNKNOWN,
    Wanted,
    config_body,
    model_body,
    scaling_bodies,
    tags_of,
    wanted,
)
from bentotool_sagemaker.standing import Standing, look, numbered, scalable, state_of, tags, url_of
from bentotool_sagemaker.update import bring_up, check_owner, starting_count, take_away

__all__ = ["SageMakerTarget"]

_NAME = "sagemaker"
_UNKNOWN = "ACCOUNT"  # in a plan that nobody could be asked for


class SageMakerTarget:
    """See :class:`bentotool.targetspec.Target`."""

    def plan(self, bento: DeployBento, options: DeployOptions) -> Plan:
        """What would be made. Without AWS, as if nothing ran."""
        cloud = _cloud(options.values)
        asked = wanted(bento, options)
        _check_image(bento, options)
        _check_place(options, "region", cloud.region)
        try:
            account = cloud.account
            standing = look(cloud, options.name)
        except RemoteError as error:
            plan = self._plan(cloud, bento, options, asked, Standing(options.name), None)
            return replace(plan, blind=error.message)
        _check_place(options, "account", account)
        check_owner(standing)
        return self._plan(cloud, bento, options, asked, standing, account)

    def _plan(
        self, cloud: Cloud, bento: DeployBento, options: DeployOptions, asked: Wanted, standing: Standing,
        account: str | None,
    ) -> Plan:  # fmt: skip
        known = account is not None
        models, configs = numbered(cloud, options.name) if known else ({}, {})
        name = resource_name(options.name, max((*models, *configs), default=0) + 1)
        count = starting_count(standing, options.values)
        action: Literal["create", "replace"] = "replace" if standing.status else "create"
        image = _planned_image(cloud, bento, options, asked, account)
        model = model_body(bento, options, asked, name, image, _role(cloud, asked, account))
        config = config_body(bento, options, asked, name, count)
        old_model, old_config = _now(cloud, standing, model, config) if standing.status else (None, None)
        endpoint: dict[str, JSON] = {"EndpointName": options.name, "EndpointConfigName": name,
                    "Tags": tags_of(bento, options, asked.tags)}  # fmt: skip
        now = {**endpoint} if standing.status else None
        resources = [
            PlannedResource("model", name, action, model, old_model, standing.config),
            PlannedResource("endpoint-config", name, action, config, old_config, standing.config),
            PlannedResource("endpoint", options.name, action, endpoint, now),
        ]  # fmt: skip
        if scaling := scaling_bodies(options.name, options.values):
            before = scalable(cloud, options.name) if standing.status else None
            there = {key: before.get(key) for key in scaling[0]} if before is not None else None
            resources.append(
                PlannedResource("scaling", options.name, "replace" if before else "create", scaling[0], there)
            )
        if standing.status:
            resources += [
                PlannedResource("endpoint-config", standing.config, "delete"),
                PlannedResource("model", standing.config, "delete"),
            ]
        return Plan(_NAME, bento, options, tuple(resources), url_of(cloud, options.name), _notes(bento))

    def apply(self, plan: Plan, wait: bool) -> Deployment:
        """Bring the image to ECR, make the version, have SageMaker put it in place."""
        options, cloud = plan.options, _cloud(plan.options.values)
        asked = wanted(plan.bento, options)
        if asked.path == UNKNOWN:
            raise UsageError("/invocations is one API, and none is named", hint="--api NAME")
        account, used = cloud.account, [""]
        own = not options.values["image"]
        facts: dict[str, JSON] = {"region": cloud.region, "account": account, "role": _role(cloud, asked, account)}
        facts["api"] = asked.path
        if cloud.profile:
            facts["profile"] = cloud.profile
        if asked.instance:
            facts["instance-type"] = asked.instance

        def deployment() -> Deployment:
            named: dict[str, JSON] = {**facts, "image": used[0], "image_made": own}
            return Deployment(
                plan.name, _NAME, "ready" if wait else "starting", plan.url, plan.bento.tag, plan.bento.digest,
                facts=named,
            )  # fmt: skip

        def image() -> str:
            used[0] = _image(cloud, plan, asked)
            options.making(replace(deployment(), status="unknown"))
            return used[0]

        bring_up(
            cloud, plan, asked, image, str(facts["role"]), wait=wait, commit=lambda: options.committed(deployment())
        )
        return deployment()

    def status(self, deployment: Deployment) -> Deployment:
        """How it is now."""
        cloud = _cloud(deployment.facts)
        return _described(cloud, look(cloud, deployment.name), deployment.facts)

    def logs(self, deployment: Deployment, follow: bool, tail: int) -> Iterator[str]:
        """Lines of its containers, from CloudWatch."""
        yield from lines(_cloud(deployment.facts), deployment.name, follow=follow, tail=tail)

    def delete(self, deployment: Deployment) -> Sequence[str]:
        """Remove what carries its tag."""
        return take_away(_cloud(deployment.facts), deployment.name)

    def list(self) -> Sequence[Deployment]:
        """The deployments in the region that is meant now."""
        return self.list_at({})

    def is_at(self, deployment: Deployment, place: Mapping[str, Any]) -> bool:
        """Whether a deployment is in a region, and in the account of a profile, as far as they are named."""
        facts, region, profile = deployment.facts, place.get("region"), place.get("profile")
        if region and region != facts.get("region"):
            return False
        if not profile or profile == facts.get("profile"):
            return True
        return _cloud({"profile": profile, "region": region or facts.get("region")}).account == facts.get("account")

    def list_at(self, place: Mapping[str, Any]) -> Sequence[Deployment]:
        """The deployments in a region of an account."""
        cloud = _cloud(place)
        client = cloud.client("sagemaker")
        with explained("list endpoints"):
            pages = client.get_paginator("list_endpoints").paginate()
            found = {
                str(each["EndpointName"]): str(each["EndpointArn"]) for page in pages for each in page["Endpoints"]
            }
            names = [name for name, arn in found.items() if tags(client, arn).get(DEPLOYMENT) == name]
        facts = {"region": cloud.region, **({"profile": cloud.profile} if cloud.profile else {})}
        return [_described(cloud, look(cloud, name), facts) for name in names]


def _cloud(values: Mapping[str, Any]) -> Cloud:
    region, profile = values.get("region"), values.get("profile")
    return _opened(str(region) if region else None, str(profile) if profile else None)


@functools.lru_cache(maxsize=8)
def _opened(region: str | None, profile: str | None) -> Cloud:
    """Kept: to make a client of SageMaker takes half a second."""
    return Cloud(region, profile)


def _check_image(bento: DeployBento, options: DeployOptions) -> None:
    given = options.values["image"]
    if given and bento.anew:
        raise UsageError(
            f"--image {given} runs as it is: --base and --builder say how the Bento's own is made",
            hint="leave --image out, or --base and --builder",
        )
    if given:
        split_reference(str(given))


def _check_place(options: DeployOptions, what: str, now: str) -> None:
    """Raises: ConflictError: the deployment is one in another region or account."""
    recorded = options.previous.facts.get(what) if options.previous is not None else None
    if isinstance(recorded, str) and recorded != now:
        raise ConflictError(
            f"{options.name} is deployed in {what} {recorded}, and {now} is meant now",
            hint=f"--region {recorded} updates it there; another --name makes one here"
            if what == "region"
            else "use the credentials of that account; another --name makes one here",
        )


def _role(cloud: Cloud, asked: Wanted, account: str | None) -> str:
    if asked.role.startswith("arn:"):
        return asked.role
    return f"arn:{cloud.partition}:iam::{account or _UNKNOWN}:role/{asked.role}"


def _platform(asked: Wanted) -> str:
    return platform_of(asked.instance) if asked.instance else "linux/amd64"


def _where(cloud: Cloud, options: DeployOptions, account: str | None) -> str:
    suffix = "amazonaws.com.cn" if cloud.partition == "aws-cn" else "amazonaws.com"
    own = f"{account or _UNKNOWN}.dkr.ecr.{cloud.region}.{suffix}"
    return str(options.values["registry"] or own).rstrip("/")


def _same_as_before(bento: DeployBento, options: DeployOptions) -> str:
    """The image that was made for this very Bento the last time, where nothing asks for another."""
    before = options.previous
    if before is None or bento.anew or not bento.digest or before.digest != bento.digest:
        return ""
    image = before.facts.get("image")
    return image if isinstance(image, str) and before.facts.get("image_made") is True else ""


def _planned_image(cloud: Cloud, bento: DeployBento, options: DeployOptions, asked: Wanted, account: str | None) -> str:
    if options.values["image"]:
        return str(options.values["image"])
    if before := _same_as_before(bento, options):
        return before
    where = _where(cloud, options, account)
    if bento.registry is None or (account is None and not options.values["registry"]):
        return f"{where}/{bento.name}:{bento.version}"
    return bento.registry.planned(where, (_platform(asked),)).reference


def _image(cloud: Cloud, plan: Plan, asked: Wanted) -> str:
    """The image to run, in a registry and in the form that SageMaker takes; made and pushed where that is needed."""
    options, bento, platform = plan.options, plan.bento, _platform(asked)
    if given := options.values["image"]:
        return usable_image(cloud, str(given), platform)
    if before := _same_as_before(bento, options):
        try:
            return usable_image(cloud, before, platform)
        except NotFoundError:
            options.note(f"ECR has {before} no more: it is made again")
    if bento.registry is None:
        raise NotFoundError(
            f"the store has no Bento {bento.tag} to make the image of", hint="pull the Bento, or name an --image"
        )
    where = _where(cloud, options, cloud.account)
    host, _, path = where.partition("/")
    if place := ecr_place(host):
        ensure_repository(cloud, place, f"{path}/{bento.name}".lstrip("/"), options.note)
    published = bento.registry.publish(where, (platform,))
    digest = published.images.get(platform) or published.digest
    return usable_image(cloud, f"{published.repository}@{digest}", platform)


def _notes(bento: DeployBento) -> tuple[str, ...]:
    notes = []
    if len(bento.services) > 1:
        names = ", ".join(service.name for service in bento.services)
        notes.append(f"every instance runs all services ({names}), and SageMaker calls {bento.services[0].name}")
    if lacking := [name for service in bento.services for name, value in service.envs.items() if value is None]:
        notes.append(f"the service wants {', '.join(sorted(set(lacking)))}: give it with --env, or with the role")
    return tuple(notes)


def _now(
    cloud: Cloud, standing: Standing, model: Mapping[str, Any], config: Mapping[str, Any]
) -> tuple[dict[str, JSON] | None, dict[str, JSON] | None]:
    """What stands, in the form of what is to be made: with the new numbers, and without what AWS adds."""
    client = cloud.client("sagemaker")
    try:
        with explained(f"look at model {standing.config}"):
            found = client.describe_model(ModelName=standing.config)
            owned = tags(client, str(found["ModelArn"]))
    except NotFoundError:
        return None, None
    listed = [{"Key": key, "Value": value} for key, value in owned.items()]
    container = found.get("PrimaryContainer") or {}
    shown = {key: container.get(key) for key in model["PrimaryContainer"]}
    before: dict[str, Any] = {
        **{key: found[key] for key in ("ExecutionRoleArn", "VpcConfig", "EnableNetworkIsolation") if found.get(key)},
        "ModelName": model["ModelName"], "PrimaryContainer": shown, "Tags": listed,
    }  # fmt: skip
    variants = [
        {**{key: value for key, value in each.items() if key in config["ProductionVariants"][0]},
         "ModelName": model["ModelName"]}
        for each in standing.body.get("ProductionVariants") or ()
    ]  # fmt: skip
    kept = {key: standing.body[key] for key in ("KmsKeyId", "AsyncInferenceConfig") if standing.body.get(key)}
    of_config: dict[str, Any] = {
        **kept, "EndpointConfigName": config["EndpointConfigName"], "ProductionVariants": variants,
        "Tags": [{"Key": key, "Value": value} for key, value in standing.tags.items()],
    }  # fmt: skip
    return before, of_config


def _described(cloud: Cloud, standing: Standing, facts: Mapping[str, JSON]) -> Deployment:
    status, detail = state_of(standing)
    known: dict[str, JSON] = {**facts, "endpoint": standing.name, "endpoint_status": standing.status}
    if standing.instances:
        known["instances"] = standing.instances
    if number := number_of(standing.name, standing.config):
        known["version"] = number
    return Deployment(
        standing.name, _NAME, status, url_of(cloud, standing.name), standing.tags.get(BENTO, ""),
        standing.tags.get(DIGEST, ""), detail, known,
    )  # fmt: skip
