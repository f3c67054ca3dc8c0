"""Deployments against moto's server: made, updated, broken, taken back, deleted."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from bentotool.errors import AuthenticationError, BentotoolError, ConflictError, UsageError

pytestmark = pytest.mark.timeout(180)

REGION, ACCOUNT = "eu-central-1", "123456789012"
HOST = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com"
NOTHING: dict[str, list[str]] = {"models": [], "configs": [], "endpoints": [], "scaling": []}
Look = Callable[[], dict[str, list[str]]]


def standing(number: int, scaling: bool = False) -> dict[str, list[str]]:
    found = {"models": [f"iris-{number}"], "configs": [f"iris-{number}"], "endpoints": ["iris"], "scaling": []}
    return {**found, "scaling": ["endpoint/iris/variant/main"] if scaling else []}


def test_from_a_bento_to_an_endpoint_and_away(aws: Any, deployer: Any, client: Any, there: Look) -> None:
    from bentotool.deploy.api import delete_deployment, find_deployment, list_deployments

    aws.slow = 2
    done = deployer.deploy("iris", deployer.bento(), "tag=team=search", "volume=30", env={"LEVEL": "info"})
    assert (done.status, done.tag) == ("ready", "iris:1")
    assert done.url == f"https://runtime.sagemaker.{REGION}.amazonaws.com/endpoints/iris/invocations"
    assert there() == standing(1)
    model = client("sagemaker").describe_model(ModelName="iris-1")
    assert model["ExecutionRoleArn"] == f"arn:aws:iam::{ACCOUNT}:role/runner"
    container = model["PrimaryContainer"]
    assert container["Environment"] == {
        "LEVEL": "info", "PORT": "8080", "BENTOTOOL_HOST": "0.0.0.0",
        "BENTOTOOL_PATHS": "/ping=/readyz,/invocations=/predict",
    }  # fmt: skip
    assert container["Image"].startswith(f"{HOST}/iris@sha256:")
    variant = client("sagemaker").describe_endpoint_config(EndpointConfigName="iris-1")["ProductionVariants"][0]
    assert (variant["InstanceType"], variant["InitialInstanceCount"]) == ("ml.m5.large", 1)
    assert variant["ContainerStartupHealthCheckTimeoutInSeconds"] == 600
    arn = client("sagemaker").describe_endpoint(EndpointName="iris")["EndpointArn"]
    tags = {tag["Key"]: tag["Value"] for tag in client("sagemaker").list_tags(ResourceArn=arn)["Tags"]}
    assert (tags["team"], tags["bentotool:deployment"], tags["bentotool:bento"]) == ("search", "iris", "iris:1")
    assert any("endpoint iris is Creating" in text for text in deployer.told)
    found = find_deployment(deployer.layout, deployer.plugins, "iris")[1]
    assert (found.status, found.tag, found.facts["version"]) == ("ready", "iris:1", 1)
    assert [each.name for each in list_deployments(deployer.layout, deployer.plugins, "sagemaker")[0]] == ["iris"]
    _, removed = delete_deployment(deployer.layout, deployer.plugins, "iris")
    assert removed == ["endpoint iris", "endpoint config iris-1", "model iris-1"]
    assert there() == NOTHING


def test_the_image_is_put_in_the_form_that_sagemaker_takes(deployer: Any, client: Any) -> None:
    bento = deployer.bento()
    deployer.deploy("iris", bento)
    assert deployer.registry.pushed == [f"{HOST}/iris"]
    assert any("make the repository iris" in note for note in deployer.notes)
    image = client("sagemaker").describe_model(ModelName="iris-1")["PrimaryContainer"]["Image"]
    answer = client("ecr").batch_get_image(repositoryName="iris", imageIds=[{"imageDigest": image.partition("@")[2]}])
    manifest = json.loads(answer["images"][0]["imageManifest"])
    assert manifest["mediaType"] == "application/vnd.docker.distribution.manifest.v2+json"
    assert manifest["config"]["mediaType"] == "application/vnd.docker.container.image.v1+json"
    assert [layer["mediaType"] for layer in manifest["layers"]] == ["application/vnd.docker.image.rootfs.diff.tar.gzip"]
    assert "annotations" not in manifest
    again = deployer.bento()
    deployer.deploy("iris", again)  # the same Bento: nothing is pushed
    assert deployer.registry.pushed == []
    assert client("sagemaker").describe_model(ModelName="iris-2")["PrimaryContainer"]["Image"] == image


def test_an_update_and_back(aws: Any, deployer: Any, there: Look) -> None:
    from bentotool.deploy.api import status_of
    from bentotool.deploy.earlier import repeated_options, revision_before
    from bentotool.deploy.records import Records

    deployer.deploy("iris", deployer.bento())
    aws.slow = 2
    deployer.deploy("iris", deployer.bento("2"), "instances=2")
    assert there() == standing(2)
    assert aws.calls.index("UpdateEndpoint") < aws.calls.index("DeleteModel")
    record = Records(deployer.layout).get("iris")
    assert [revision.deployment.tag for revision in record.revisions] == ["iris:2", "iris:1"]
    assert status_of(deployer.plugins, record.deployment).facts["instances"] == 2
    decl = deployer.plugins.targets()["sagemaker"]
    before = revision_before(record)
    pairs = [f"{key}={value}" for key, value in repeated_options(decl, before).items()
             if value not in (None, "", (), False) and key != "role"]  # fmt: skip
    image = before.deployment.facts["image"]
    assert f"image={image}" in pairs  # what ran is what runs again, whatever the store has by now
    done = deployer.deploy("iris", deployer.bento("1", registry=None), *pairs)
    assert (done.tag, done.facts["image"]) == ("iris:1", image)
    assert there() == standing(3)


def test_scaling_comes_goes_and_keeps_what_runs(aws: Any, deployer: Any, client: Any, there: Look) -> None:
    deployer.deploy("iris", deployer.bento(), "max-instances=4", "per-instance=300")
    assert there() == standing(1, scaling=True)
    scaling = client("application-autoscaling")
    policy = scaling.describe_scaling_policies(ServiceNamespace="sagemaker")["ScalingPolicies"][0]
    tracked = policy["TargetTrackingScalingPolicyConfiguration"]
    assert (policy["PolicyType"], tracked["TargetValue"]) == ("TargetTrackingScaling", 300.0)
    assert tracked["PredefinedMetricSpecification"] == {
        "PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"
    }
    aws.endpoints["iris"]["instances"] = 3  # it has grown
    deployer.deploy("iris", deployer.bento("2"), "max-instances=4")
    config = client("sagemaker").describe_endpoint_config(EndpointConfigName="iris-2")
    assert config["ProductionVariants"][0]["InitialInstanceCount"] == 3
    deployer.deploy("iris", deployer.bento("2"), "max-instances=4", "instance-type=ml.c5.xlarge")
    assert there() == standing(3, scaling=True)
    deployer.deploy("iris", deployer.bento("2"))
    assert there() == standing(4)


@pytest.mark.parametrize("first", [True, False])
def test_a_version_that_does_not_come_into_service(
    aws: Any, deployer: Any, client: Any, there: Look, first: bool
) -> None:
    before = NOTHING
    if not first:
        deployer.deploy("iris", deployer.bento())
        before = standing(1)
    logs = client("logs")
    logs.create_log_group(logGroupName="/aws/sagemaker/Endpoints/iris")
    logs.create_log_stream(logGroupName="/aws/sagemaker/Endpoints/iris", logStreamName="main/i-1")
    events = [{"timestamp": int(time.time() * 1000), "message": "error: no module named torch"}]
    logs.put_log_events(logGroupName="/aws/sagemaker/Endpoints/iris", logStreamName="main/i-1", logEvents=events)
    aws.slow, aws.fails = 1, "The primary container for production variant main did not pass the ping health check."
    with pytest.raises(BentotoolError) as raised:
        deployer.deploy("iris", deployer.bento("2"))
    assert raised.value.code == "unhealthy"
    assert "did not pass the ping health check" in raised.value.message
    assert raised.value.message.endswith("error: no module named torch")
    assert "\n" not in raised.value.message
    assert "iris | error: no module named torch" in deployer.notes
    assert there() == before
    aws.fails = ""
    deployer.deploy("iris", deployer.bento("2"))  # what failed is in nobody's way
    assert len(there()["models"]) == 1


@pytest.mark.parametrize(
    ("operation", "code", "message", "kind", "said"),
    [
        ("CreateModel", "AccessDeniedException", "User u is not authorized to perform: sagemaker:CreateModel",
         AuthenticationError, "not allowed"),
        ("CreateEndpointConfig", "ResourceLimitExceeded", "The service limit of ml.m5.large is 0 Instances",
         BentotoolError, "service limit"),
        ("CreateEndpoint", "ResourceLimitExceeded", "limit", BentotoolError, "limit"),
        ("CreateModel", "ValidationException", "Could not assume role arn:aws:iam::1:role/runner", UsageError, "role"),
        ("CreateModel", "ValidationException", "Unsupported manifest media type", UsageError, "manifest"),
        ("UpdateEndpoint", "UnknownOperation", "not in this region", BentotoolError, "not in this region"),
    ],
)  # fmt: skip
def test_what_aws_refuses_leaves_what_there_was(
    aws: Any, deployer: Any, there: Look, operation: str, code: str, message: str, kind: type, said: str
) -> None:
    update = operation == "UpdateEndpoint"
    if update:
        deployer.deploy("iris", deployer.bento())
    aws.refused[operation] = code, message
    with pytest.raises(kind) as raised:
        deployer.deploy("iris", deployer.bento("2"))
    assert said in raised.value.message
    assert raised.value.hint
    assert there() == (standing(1) if update else NOTHING)


def test_an_interrupt_while_it_waits(aws: Any, deployer: Any, there: Look) -> None:
    """Nothing stops an update of SageMaker: what was made for it stays, and the next deployment clears it away."""
    deployer.deploy("iris", deployer.bento())
    aws.slow = 6

    def interrupt(operation: str) -> None:
        if operation == "DescribeLogStreams":
            aws.seen = lambda operation: None
            raise KeyboardInterrupt

    plan = deployer.plan("iris", deployer.bento("2"))
    told: list[str] = []

    def progress(text: str) -> None:
        raise KeyboardInterrupt

    from dataclasses import replace

    from bentotool.deploy.api import apply_plan

    with pytest.raises(KeyboardInterrupt):
        apply_plan(
            deployer.layout, deployer.plugins,
            replace(plan, options=replace(plan.options, progress=progress, note=told.append)), wait=True,
        )  # fmt: skip
    assert any("SageMaker goes on with the update by itself" in text for text in told)
    assert there()["models"] == ["iris-1", "iris-2"]
    with pytest.raises(ConflictError, match="another deployment of iris is under way"):
        deployer.deploy("iris", deployer.bento("3"))
    aws.endpoints["iris"]["left"] = 0
    deployer.deploy("iris", deployer.bento("3"))
    assert there() == standing(3)


def test_two_at_once(aws: Any, deployer: Any, there: Look) -> None:
    aws.slow = 20
    said: list[str] = []

    def deploy(version: str) -> None:
        try:
            said.append(deployer.deploy("iris", deployer.bento(version)).tag)
        except ConflictError as error:
            said.append(error.message)

    both = [threading.Thread(target=deploy, args=(version,)) for version in "12"]
    for each in both:
        each.start()
    for each in both:
        each.join(60)
    assert len(said) == 2
    winners = [each for each in said if each.startswith("iris:")]
    assert winners
    assert all(each in winners or "under way" in each for each in said), said
    assert len(there()["models"]) == len(there()["configs"]) == 1


def test_what_others_have_stays(aws: Any, deployer: Any, client: Any, there: Look) -> None:
    sagemaker = client("sagemaker")
    role = f"arn:aws:iam::{ACCOUNT}:role/other"
    sagemaker.create_model(ModelName="iris-7", ExecutionRoleArn=role, PrimaryContainer={"Image": "x/y"})
    variant = {"VariantName": "all", "ModelName": "iris-7", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    sagemaker.create_endpoint_config(EndpointConfigName="theirs", ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName="taken", EndpointConfigName="theirs")
    with pytest.raises(ConflictError, match="there is an endpoint taken that is not of this deployment"):
        deployer.deploy("taken", deployer.bento())
    deployer.deploy("iris", deployer.bento())
    deployer.deploy("iris", deployer.bento("2"))
    from bentotool.deploy.api import delete_deployment

    delete_deployment(deployer.layout, deployer.plugins, "iris")
    assert there() == {"models": ["iris-7"], "configs": ["theirs"], "endpoints": ["taken"], "scaling": []}


def test_delete_while_it_is_updated(aws: Any, deployer: Any) -> None:
    from bentotool.deploy.api import delete_deployment

    deployer.deploy("iris", deployer.bento())
    aws.endpoints["iris"]["status"], aws.endpoints["iris"]["left"] = "Updating", 99
    with pytest.raises(ConflictError, match="is Updating, and SageMaker deletes none that is"):
        delete_deployment(deployer.layout, deployer.plugins, "iris")


def test_no_wait_is_for_a_first_one_that_does_not_scale(aws: Any, deployer: Any) -> None:
    aws.slow = 3
    with pytest.raises(UsageError, match="scales once it is in service"):
        deployer.deploy("iris", deployer.bento(), "max-instances=3", wait=False)
    assert deployer.deploy("iris", deployer.bento(), wait=False).status == "starting"
    aws.endpoints["iris"]["left"] = 0
    from bentotool.deploy.api import find_deployment

    assert find_deployment(deployer.layout, deployer.plugins, "iris")[1].status == "ready"
    with pytest.raises(UsageError, match="an update has to wait"):
        deployer.deploy("iris", deployer.bento("2"), wait=False)


def test_logs_in_the_order_of_time(deployer: Any, client: Any) -> None:
    from bentotool.deploy.api import logs_of

    deployer.deploy("iris", deployer.bento())
    logs, group = client("logs"), "/aws/sagemaker/Endpoints/iris"
    logs.create_log_group(logGroupName=group)
    for stream in ("main/a", "main/b"):
        logs.create_log_stream(logGroupName=group, logStreamName=stream)
    now = int(time.time() * 1000)
    for stream, offset, text in (("main/a", 0, "one"), ("main/b", 5, "two"), ("main/a", 9, "three")):
        events = [{"timestamp": now + offset, "message": text}]
        logs.put_log_events(logGroupName=group, logStreamName=stream, logEvents=events)
    every = logs_of(deployer.layout, deployer.plugins, "iris", follow=False, tail=0)
    assert list(every) == ["one", "two", "three"]
    assert list(logs_of(deployer.layout, deployer.plugins, "iris", follow=False, tail=1)) == ["three"]
    following = logs_of(deployer.layout, deployer.plugins, "iris", follow=True, tail=1)
    assert next(following) == "three"
    events = [{"timestamp": now + 10, "message": "four"}]
    logs.put_log_events(logGroupName=group, logStreamName="main/b", logEvents=events)
    assert next(following) == "four"
