"""What is said before anything is made: plans, options that do not go together, no credentials; the login to ECR."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bentotool.errors import AuthenticationError, ConflictError, NotFoundError, RemoteError, UsageError

pytestmark = pytest.mark.timeout(180)

REGION, ACCOUNT = "eu-central-1", "123456789012"
HOST = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com"


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        (("api=absent",), "there is no API 'absent'"),
        (("subnet=subnet-1",), "--subnet has no effect without --security-group"),
        (("security-group=sg-1",), "--security-group has no effect without --subnet"),
        (("scale-in=10",), "--scale-in has no effect without --max-instances"),
        (("per-instance=10",), "--per-instance has no effect without --max-instances"),
        (("concurrency=10",), "--concurrency has no effect without --serverless"),
        (("async-concurrency=10",), "--async-concurrency has no effect without --async-output"),
        (("serverless=2048", "instances=2"), "do not go together"),
        (("instances=3", "max-instances=2"), "is less than --instances 3"),
        (("serverless=2000",), "no multiple of 1024"),
        (("serverless=2048", "max-instances=2"), "do not go together"),
        (("instance-type=m5.large",), "is none"),
        (("async-output=/tmp",), "no place in S3"),
        (("tag=bentotool:x=y",), "is not of the form NAME=VALUE"),
        (("image=iris:1",), "is no image in a registry"),
        (("role=no role",), "neither a name nor an ARN"),
    ],
)
def test_what_does_not_go_together(deployer: Any, pairs: tuple[str, ...], said: str) -> None:
    from bentotool_sagemaker.hooks import bentotool_targets
    from bentotool_sagemaker.target import SageMakerTarget

    from bentotool.deploy.options import option_values
    from bentotool.targetspec import DeployOptions

    role = () if any(pair.startswith("role=") for pair in pairs) else ("role=runner",)

    def plan() -> None:
        options = DeployOptions("iris", option_values(bentotool_targets()[0], [*role, *pairs]))
        SageMakerTarget().plan(deployer.bento(), options)

    with pytest.raises(UsageError) as raised:
        plan()
    assert said in raised.value.message
    assert raised.value.hint


def test_no_role_and_variables_that_are_taken(deployer: Any) -> None:
    with pytest.raises(UsageError, match="no role is named"):
        _without_role(deployer)
    with pytest.raises(UsageError, match="PORT is set by the deployment itself"):
        deployer.plan("iris", deployer.bento(), env={"PORT": "1"})
    with pytest.raises(UsageError, match="longer than the 1024 characters"):
        deployer.plan("iris", deployer.bento(), env={"LONG": "x" * 2000})


def _without_role(deployer: Any) -> None:
    from bentotool_sagemaker.hooks import bentotool_targets
    from bentotool_sagemaker.target import SageMakerTarget

    from bentotool.deploy.options import option_values
    from bentotool.targetspec import DeployOptions

    SageMakerTarget().plan(deployer.bento(), DeployOptions("iris", option_values(bentotool_targets()[0], [])))


def test_a_graph_a_gpu_and_another_processor(deployer: Any) -> None:
    from bentotool.deployspec import DeployService

    front = DeployService("Front", "s:Front", ("Big",), apis={"ask": "/v1/ask", "tell": "/v1/tell"}, path_prefix="/v1")
    big = DeployService("Big", "s:Big", resources={"gpu": 1}, envs={"TOKEN": None})
    bento = deployer.bento(services=(front, big))
    with pytest.raises(UsageError, match="one API, and none is named") as raised:
        deployer.plan("iris", bento)
    assert "ask, tell" in str(raised.value.hint)
    plan = deployer.plan("iris", bento, "api=ask")
    assert any("runs all services (Front, Big), and SageMaker calls Front" in note for note in plan.notes)
    assert any("wants TOKEN" in note for note in plan.notes)
    model, config = plan.resources[0].spec, plan.resources[1].spec
    assert model["PrimaryContainer"]["Environment"]["BENTOTOOL_PATHS"] == "/ping=/readyz,/invocations=/ask"
    assert config["ProductionVariants"][0]["InstanceType"] == "ml.g5.xlarge"
    with pytest.raises(UsageError, match="no GPU"):
        deployer.plan("iris", bento, "api=ask", "serverless=2048")
    from bentotool_sagemaker.names import platform_of

    types = ("ml.m5.large", "ml.g4dn.xlarge", "ml.g5.2xlarge", "ml.c7g.large", "ml.m6gd.large", "ml.inf2.xlarge")
    assert [platform_of(each).rpartition("/")[2] for each in types] == [
        "amd64", "amd64", "amd64", "arm64", "arm64", "amd64",
    ]  # fmt: skip


def test_serverless_asynchronous_and_in_a_vpc(deployer: Any) -> None:
    plan = deployer.plan("iris", deployer.bento(), "serverless=2048", "concurrency=9")
    assert plan.resources[1].spec["ProductionVariants"][0]["ServerlessConfig"] == {
        "MemorySizeInMB": 2048, "MaxConcurrency": 9,
    }  # fmt: skip
    plan = deployer.plan("iris", deployer.bento(), "async-output=s3://answers/here", "async-concurrency=4",
                         "max-instances=3", "per-instance=5", "kms-key=k", "isolated=true",
                         "subnet=subnet-1", "subnet=subnet-2", "security-group=sg-1")  # fmt: skip
    model, config, _, scaling = (each.spec for each in plan.resources)
    assert config["AsyncInferenceConfig"] == {
        "OutputConfig": {"S3OutputPath": "s3://answers/here"},
        "ClientConfig": {"MaxConcurrentInvocationsPerInstance": 4},
    }
    assert (config["KmsKeyId"], model["EnableNetworkIsolation"], scaling["MaxCapacity"]) == ("k", True, 3)
    assert model["VpcConfig"] == {"Subnets": ["subnet-1", "subnet-2"], "SecurityGroupIds": ["sg-1"]}


def test_what_an_update_changes(deployer: Any) -> None:
    from bentotool.deploy.differences import differences

    bento = deployer.bento()
    deployer.deploy("iris", bento, "max-instances=3", env={"LEVEL": "info"})
    same = deployer.plan("iris", deployer.bento(), "max-instances=3", env={"LEVEL": "info"})
    assert [(each.kind, changes) for each, changes in differences(same)] == []
    other = deployer.plan("iris", deployer.bento(), "max-instances=5", "instances=2", env={"LEVEL": "debug"})
    changed = {change.path: (change.now, change.then) for _, changes in differences(other) for change in changes}
    assert changed["PrimaryContainer.Environment.LEVEL"] == ("info", "debug")
    assert changed["MaxCapacity"] == (3, 5)


def test_another_region_or_account_is_no_update(aws: Any, deployer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    deployer.deploy("iris", deployer.bento())
    with pytest.raises(ConflictError, match="is deployed in region eu-central-1, and us-east-1 is meant now"):
        deployer.plan("iris", deployer.bento(), "region=us-east-1")


def test_a_plan_needs_no_aws(deployer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    plan = deployer.plan("iris", deployer.bento())
    assert "AWS has no credentials here" in plan.blind
    document = json.loads(json.dumps(plan.to_dict()))
    assert document["resources"][0]["spec"]["PrimaryContainer"]["Image"] == (
        f"ACCOUNT.dkr.ecr.{REGION}.amazonaws.com/iris:1"
    )
    with pytest.raises(AuthenticationError, match="no credentials"):
        deployer.deploy("iris", deployer.bento())
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAOFNOBODY")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    monkeypatch.delenv("AWS_REGION")
    from bentotool_sagemaker.target import _opened

    _opened.cache_clear()
    with pytest.raises(UsageError, match="no AWS region is named"):
        deployer.plan("iris", deployer.bento())
    with pytest.raises(UsageError, match="the AWS configuration cannot be used"):
        deployer.plan("iris", deployer.bento(), "profile=nobody")


def test_an_aws_that_does_not_answer(deployer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from bentotool_sagemaker import cloud

    monkeypatch.setattr(cloud, "_SETTINGS", cloud.Config(connect_timeout=2, retries={"total_max_attempts": 1}))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(RemoteError, match="AWS does not answer"):
        deployer.deploy("iris", deployer.bento())


def test_an_image_that_is_named(deployer: Any, client: Any) -> None:
    bento = deployer.bento()
    with pytest.raises(NotFoundError, match="look for image iris 7 in ECR"):
        deployer.deploy("iris", bento, f"image={HOST}/iris:7")
    client("ecr").create_repository(repositoryName="iris")
    deployer.registry.publish(HOST, ("linux/amd64",))
    done = deployer.deploy("iris", bento, f"image={HOST}/iris:1")
    assert done.facts["image_made"] is False
    assert done.facts["image"].startswith(f"{HOST}/iris@sha256:")
    elsewhere = deployer.deploy("iris", bento, "image=registry.example/team/iris:1")
    assert elsewhere.facts["image"] == "registry.example/team/iris:1"


def test_manifests_of_all_kinds(aws: Any) -> None:
    from bentotool_sagemaker.ecr import docker_manifest, split_reference

    config = {"mediaType": "application/vnd.oci.image.config.v1+json", "size": 1, "digest": "sha256:a"}
    zstd = {"mediaType": "application/vnd.oci.image.layer.v1.tar+zstd", "size": 1, "digest": "sha256:b"}
    with pytest.raises(UsageError, match="SageMaker takes no application/vnd.oci.image.layer.v1.tar\\+zstd"):
        docker_manifest(json.dumps({"config": config, "layers": [zstd]}), "host/x")
    with pytest.raises(UsageError, match="is no container image"):
        docker_manifest("{}", "host/x")
    assert split_reference("h/a/b:1") == ("h", "a/b", "1")
    assert split_reference("h:5000/a@sha256:x") == ("h:5000", "a", "sha256:x")
    assert split_reference("h/a") == ("h", "a", "latest")


def test_the_login_to_ecr(deployer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from bentotool_sagemaker.hooks import bentotool_registry_credentials

    found = bentotool_registry_credentials(registry=HOST)
    assert found is not None
    assert (found.username, bool(found.password)) == ("AWS", True)
    assert found.password not in repr(found)
    for host in ("ghcr.io", "localhost:5000", f"{HOST}.example.com", f"x{HOST}"):
        assert bentotool_registry_credentials(registry=host) is None
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    assert bentotool_registry_credentials(registry=HOST) is None


def test_by_the_command(aws: Any, deployer: Any, client: Any, tmp_path: Path) -> None:
    """As a user types it, with a Bento that is built from a folder and an image that is in ECR."""
    project = tmp_path / "project"
    project.mkdir()
    (project / "bentofile.yaml").write_text('service: "service:Iris"\n')
    (project / "service.py").write_text(
        "import bentotool\n\n@bentotool.service\nclass Iris:\n    @bentotool.api\n"
        "    def predict(self, text: str) -> str:\n        return text\n"
    )
    client("ecr").create_repository(repositoryName="iris")
    deployer.bento()
    deployer.registry.publish(HOST, ("linux/amd64",))

    def run(*words: str) -> Any:
        command = [sys.executable, "-m", "bentotool", "--store", str(tmp_path / "store"), "--json", *words]
        return subprocess.run(
            command, cwd=project, env=dict(os.environ), capture_output=True, text=True, timeout=120, check=False
        )

    options = ("--role", "runner", "--image", f"{HOST}/iris:1", "--name", "iris")
    planned = run("deploy", "sagemaker", ".", *options, "--dry-run")
    assert planned.returncode == 0, planned.stderr
    kinds = [each["kind"] for each in json.loads(planned.stdout)["resources"]]
    assert kinds == ["model", "endpoint-config", "endpoint"]
    assert aws.endpoints == {}
    done = run("deploy", "sagemaker", ".", *options)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["status"] == "ready"
    environment = client("sagemaker").describe_model(ModelName="iris-1")["PrimaryContainer"]["Environment"]
    assert environment["BENTOTOOL_PATHS"] == "/ping=/readyz,/invocations=/predict"
    for path in (tmp_path / "store" / "deployments").rglob("*.json"):  # as if another machine had made it
        path.unlink()
    elsewhere = run("deployment", "list", "--target", "sagemaker", "--region", "eu-west-3")
    assert (elsewhere.returncode, json.loads(elsewhere.stdout)) == (0, []), elsewhere.stderr
    region = json.loads(done.stdout)["facts"]["region"]
    found = json.loads(run("deployment", "list", "--target", "sagemaker", "--region", region).stdout)
    assert [(each["name"], each["status"]) for each in found] == [("iris", "ready")]
    deleted = run("deployment", "delete", "iris", "--target", "sagemaker", "--region", region)
    assert deleted.returncode == 0, deleted.stderr
    assert aws.endpoints == {}
    refused = run("deploy", "sagemaker", ".", "--name", "iris")
    error = json.loads(refused.stderr.splitlines()[-1])["error"]
    assert (refused.returncode, error["message"]) == (2, "no role is named for the endpoint to run as")


def test_the_plugin_keeps_its_contract() -> None:
    from bentotool.testing import check_plugin

    assert check_plugin("sagemaker").distribution == "bentotool-sagemaker"
