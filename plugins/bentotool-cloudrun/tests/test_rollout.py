"""Deploying to a Cloud Run that behaves as documented: who serves meanwhile, what is said, what is left."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from bentotool.errors import (
    AuthenticationError,
    BentotoolError,
    ConflictError,
    NotFoundError,
    RemoteError,
    UsageError,
)
from bentotool.targetspec import DeployBento, Deployment, DeployOptions

Deploy = Callable[..., Deployment]
pytestmark = pytest.mark.timeout(200)
IMAGE = "europe-west1-docker.pkg.dev/p/bentos/iris"
FULL = "projects/p/locations/europe-west1/services/iris"


def target() -> Any:
    from bentotool_cloudrun.target import CloudRunTarget

    return CloudRunTarget()


def writes(cloud: Any) -> list[str]:
    return [method for method, _, _ in cloud.requests if method in ("POST", "PATCH", "DELETE") and "entries" not in _]


# -- what goes well ---------------------------------------------------------------------------------------------------


def test_a_first_deployment(deploy: Deploy, cloud: Any) -> None:
    made, committed, said = [], [], []
    done = deploy(making=made.append, committed=committed.append, progress=said.append)
    assert (done.status, done.url, done.tag) == ("ready", "https://iris-123.run.app", "iris:1")
    assert done.facts["image"] == f"{IMAGE}:1"
    assert (done.facts["project"], done.facts["region"]) == ("p", "europe-west1")
    assert committed == [done]
    assert [each.name for each in made] == ["iris"]  # what a command that is killed leaves is known by name
    assert cloud.services[FULL]["labels"]["bentotool-deployment"] == "iris"
    assert any("Deploying Revision" in text for text in said)
    assert writes(cloud) == ["POST"]


def test_an_update_moves_requests_only_to_what_is_ready(deploy: Deploy, cloud: Any) -> None:
    deploy()
    done = deploy(version="2")
    assert done.facts["service_revision"] == "iris-00002-abc"
    assert cloud.shares["iris"] == [
        {},  # the first is being made
        {"iris-00001-abc": 100},
        {"iris-00001-abc": 100},  # the second is being made
        {"iris-00001-abc": 100},  # it is ready
        {"iris-00002-abc": 100},  # the requests are told to go there
        {"iris-00002-abc": 100},
    ]
    assert writes(cloud) == ["POST", "PATCH", "PATCH"]


def test_the_same_again_makes_no_revision(deploy: Deploy, cloud: Any) -> None:
    deploy()
    deploy()
    assert list(cloud.revisions) == [f"{FULL}/revisions/iris-00001-abc"]


def test_a_revision_without_requests_and_then_with(deploy: Deploy, cloud: Any) -> None:
    deploy()
    said: list[str] = []
    done = deploy("traffic=false", "revision-tag=next", version="2", note=said.append)
    assert done.detail == "the new revision gets no requests"
    assert said == ["the new revision answers at https://next---x.run.app, too"]
    assert cloud.shares["iris"][-1] == {"iris-00001-abc": 100}
    deploy(version="2")
    assert cloud.shares["iris"][-1] == {"iris-00002-abc": 100}
    assert len(cloud.revisions) == 2
    tags = {each.get("tag"): each["revision"] for each in cloud.services[FULL]["traffic"] if each.get("tag")}
    assert tags == {"next": "iris-00002-abc"}
    deploy("revision-tag=next", version="3")
    tagged = next(each for each in cloud.services[FULL]["traffic"] if each.get("tag"))
    assert tagged["revision"] == "iris-00003-abc"


def test_no_traffic_for_the_first(deploy: Deploy, cloud: Any) -> None:
    with pytest.raises(UsageError, match="its first revision takes all requests"):
        deploy("traffic=false")
    assert writes(cloud) == []


def test_without_waiting(deploy: Deploy, cloud: Any) -> None:
    cloud.held.set()
    assert deploy(wait=False).status == "starting"
    assert target().status(Deployment("iris", "cloudrun", "ready", "", facts={"project": "p"})).status == "starting"


def test_what_a_person_took_away_or_added_is_a_difference(
    deploy: Deploy, cloud: Any, options: Callable[..., DeployOptions], bento: DeployBento
) -> None:
    from bentotool.deploy.differences import differences

    deploy()
    plan = target().plan(bento, options(f"image={IMAGE}:1"))
    assert [each.action for each in plan.resources] == ["keep"]
    assert list(differences(plan)) == []
    template = cloud.services[FULL]["template"]
    template["maxInstanceRequestConcurrency"] = 5
    template["volumes"] = [{"name": "x", "emptyDir": {}}]
    template["sessionAffinity"] = False  # one that Cloud Run fills in
    [(_, changes)] = differences(target().plan(bento, options(f"image={IMAGE}:2")))
    assert {each.path for each in changes} == {
        "template.maxInstanceRequestConcurrency", "template.volumes", "template.containers[service].image",
    }  # fmt: skip


def test_status_list_logs_and_delete(deploy: Deploy, cloud: Any, standin: Any) -> None:
    done = deploy()
    for name in ("a", "b", "c"):
        cloud.services[FULL.replace("iris", name)] = {
            **cloud.services[FULL], "name": FULL.replace("iris", name), "labels": {"bentotool-deployment": name},
        }  # fmt: skip
    cloud.services[FULL.replace("iris", "d")] = {**cloud.services[FULL], "name": "x/d", "labels": {}}
    assert target().status(done).status == "ready"
    assert [each.name for each in target().list()] == ["a", "b", "c", "iris"]
    for number in range(5):
        cloud.say("iris", "iris-00001-abc", f"line {number}", f"2026-01-01T00:00:0{number}Z")
    cloud.say("other", "other-00001-abc", "not mine", "2026-01-01T00:00:09Z")
    assert list(target().logs(done, False, 3)) == ["line 2", "line 3", "line 4"]
    assert len(list(target().logs(done, False, 0))) == 5
    assert target().delete(done) == ["service iris (europe-west1 of p)"]
    assert target().delete(done) == []
    assert target().status(done).status == "missing"
    with pytest.raises(NotFoundError, match="there is no service iris in europe-west1 of p"):
        list(target().logs(done, False, 3))
    assert FULL.replace("iris", "a") in cloud.services


def test_logs_are_followed(deploy: Deploy, cloud: Any) -> None:
    done = deploy()
    cloud.say("iris", "iris-00001-abc", "first", "2026-01-01T00:00:01Z")
    lines = target().logs(done, True, 1)
    assert next(lines) == "first"
    cloud.say("iris", "iris-00001-abc", "same moment", "2026-01-01T00:00:01Z")
    assert next(lines) == "same moment"
    cloud.say("iris", "iris-00001-abc", "later", "2026-01-01T00:00:02Z")
    assert next(lines) == "later"


# -- what does not come up --------------------------------------------------------------------------------------------

FAILURES = [
    ("missing", f"iris: there is no image {IMAGE}:missing", "--image"),
    ("denied", f"iris: Cloud Run may not pull {IMAGE}:denied", "roles/artifactregistry.reader"),
    ("quota", "iris: a quota of p is used up: Quota exceeded for total allowable count of GPUs", "quotas?project=p"),
    ("secret", "iris: a secret cannot be read: Permission denied on secret", "roles/secretmanager.secretAccessor"),
    ("broken", "iris does not start: ValueError: no weights", "https://console.cloud.google.com/logs/viewer"),
]


@pytest.mark.parametrize(("image", "said", "hint"), FAILURES)
def test_a_first_one_that_fails_leaves_nothing(image: str, said: str, hint: str, deploy: Deploy, cloud: Any) -> None:
    cloud.say("iris", "iris-00001-abc", "ValueError: no weights", "2026-01-01T00:00:01Z")
    with pytest.raises(RemoteError) as caught:
        deploy(f"image={IMAGE}:{image}")
    assert caught.value.message.startswith(said)
    assert "\n" not in caught.value.message
    assert hint in str(caught.value.hint)
    assert cloud.services == {}


@pytest.mark.parametrize(("image", "said", "hint"), FAILURES)
def test_an_update_that_fails_leaves_the_old_one_serving(
    image: str, said: str, hint: str, deploy: Deploy, cloud: Any
) -> None:
    done = deploy()
    committed: list[Deployment] = []
    with pytest.raises(RemoteError):
        deploy(f"image={IMAGE}:{image}", version="2", committed=committed.append)
    assert committed == []
    assert {tuple(each) for each in cloud.shares["iris"][1:]} == {("iris-00001-abc",)}
    now = target().status(done)
    assert now.status == "ready"
    assert "iris-00002-abc is not ready" in now.detail
    deploy(version="3")  # and the next one goes on from there
    assert cloud.shares["iris"][-1] == {"iris-00003-abc": 100}


def test_a_broken_one_that_said_nothing(deploy: Deploy) -> None:
    with pytest.raises(RemoteError, match="iris does not start: The user-provided container failed to start") as caught:
        deploy(f"image={IMAGE}:broken")
    assert caught.value.message.endswith("within the allocated timeout")


def test_one_that_takes_too_long(deploy: Deploy, cloud: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from bentotool_cloudrun import rollout

    deploy()
    cloud.held.set()
    clock = itertools.count(0, 100)
    monkeypatch.setattr(rollout, "time", SimpleNamespace(monotonic=lambda: next(clock)))  # the module's own alone
    with pytest.raises(RemoteError, match=r"iris is not ready after 300 s: Deploying Revision") as caught:
        deploy("timeout=300", version="2")
    assert caught.value.hint == "--timeout gives it longer"
    assert cloud.shares["iris"][-1] == {"iris-00001-abc": 100}


def test_interrupted_in_the_middle(deploy: Deploy, cloud: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(text: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        deploy(progress=lambda text: stop(text) if "removed" not in text else None)
    assert cloud.services == {}
    deploy()
    said: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        deploy(version="2", progress=stop, note=said.append)
    assert said == ["iris serves as before: the new revision gets no requests"]
    for identity in list(cloud.operations):  # it becomes ready after all
        cloud.operation(identity)
        cloud.operation(identity)
    assert cloud.services[FULL]["latestReadyRevision"].endswith("iris-00002-abc")
    assert cloud.shares["iris"][-1] == {"iris-00001-abc": 100}


# -- others at the same time ------------------------------------------------------------------------------------------


def test_two_first_deployments_at_once(deploy: Deploy, cloud: Any) -> None:
    def other(cloud: Any) -> None:
        cloud.services[FULL] = {"name": FULL, "etag": "theirs", "annotations": {}}

    cloud.faults.append(("POST", "/services", other))
    with pytest.raises(ConflictError, match="cannot deploy iris: another deployment of it is under way"):
        deploy()
    assert cloud.services[FULL]["etag"] == "theirs"


@pytest.mark.parametrize("write", [0, 1])
def test_two_updates_at_once(write: int, deploy: Deploy, cloud: Any) -> None:
    deploy()
    seen: list[int] = []

    def other(cloud: Any) -> None:
        seen.append(1)
        cloud.services[FULL]["etag"] = "theirs"
        cloud.services[FULL]["annotations"] = {**cloud.services[FULL]["annotations"], "x": "y"}
        cloud.services[FULL]["annotations"].pop("io.bentotool.deployment.attempt", None)

    for number in range(write + 1):
        cloud.faults.append(("PATCH", "/services/iris", other if number == write else lambda cloud: None))
    with pytest.raises(ConflictError, match="another deployment of it is under way"):
        deploy(version="2")
    assert seen == [1]
    assert {tuple(each) for each in cloud.shares["iris"][1:]} == {("iris-00001-abc",)}


def test_another_one_came_in_between(deploy: Deploy, cloud: Any) -> None:
    deploy()

    def other(cloud: Any) -> None:
        if cloud.services[FULL].get("reconciling"):
            cloud.services[FULL]["annotations"]["io.bentotool.deployment.attempt"] = "theirs"
            return
        cloud.faults.append(("GET", "/services/iris", other))

    cloud.faults.append(("GET", "/services/iris", other))
    with pytest.raises(ConflictError, match="came in between, and nothing of this one serves"):
        deploy(version="2")
    assert cloud.shares["iris"][-1] == {"iris-00001-abc": 100}


def test_a_service_of_somebody_else(deploy: Deploy, cloud: Any, options: Callable[..., DeployOptions]) -> None:
    cloud.services[FULL] = {"name": FULL, "etag": "theirs", "labels": {}}
    with pytest.raises(ConflictError, match="that is not of this deployment"):
        deploy()
    with pytest.raises(ConflictError, match="that is not of this deployment"):
        target().delete(Deployment("iris", "cloudrun", "ready", "", facts={"project": "p"}))
    assert writes(cloud) == []


def test_a_deployment_stays_where_it_is(
    deploy: Deploy, cloud: Any, options: Callable[..., DeployOptions], bento: DeployBento
) -> None:
    done = deploy()
    with pytest.raises(ConflictError, match="deployed in europe-west1 of p, and us-central1 of p is meant"):
        target().plan(bento, options(f"image={IMAGE}:2", "region=us-central1", previous=done))


# -- an unsteady network, a busy API ----------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [(503, "busy", {}), (429, "slow down", {"Retry-After": "7"}), "cut before"])
def test_what_is_asked_again(fault: Any, deploy: Deploy, cloud: Any, quick: list[float]) -> None:
    deploy()
    cloud.faults += [
        ("GET", "/services/iris", fault),
        ("PATCH", "/services/iris", fault),
        ("GET", "/operations", fault),
    ]
    assert deploy(version="2").status == "ready"
    assert cloud.faults == []
    assert fault[0] != 429 or quick.count(7.0) == 3


@pytest.mark.parametrize("write", ["POST", "PATCH"])
def test_an_answer_that_is_lost(write: str, deploy: Deploy, cloud: Any) -> None:
    if write == "PATCH":
        deploy()
    cloud.faults.append((write, "/services", "cut"))
    assert deploy(version="2").status == "ready"
    newest = "iris-00001-abc" if write == "POST" else "iris-00002-abc"
    assert cloud.shares["iris"][-1] == {newest: 100}


def test_it_gives_up_in_the_end(deploy: Deploy, cloud: Any, quick: list[float]) -> None:
    cloud.faults += [("GET", "/services/iris", (503, "busy", {}))] * 40
    with pytest.raises(RemoteError, match="Cloud Run answers 503: busy"):
        deploy()
    assert 5 <= len(quick) <= 10
    assert writes(cloud) == []


def test_an_api_that_never_answers(deploy: Deploy, cloud: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from bentotool_cloudrun import api

    deploy()
    monkeypatch.setattr(api, "_READ_S", 0.3)
    cloud.faults += [("GET", "/services/iris", "hang")] * 40
    with pytest.raises(RemoteError, match=r"127\.0\.0\.1:\d+ does not answer: time is up"):
        deploy(version="2")
    cloud.ended.set()


def test_a_quota_is_not_asked_for_again(deploy: Deploy, cloud: Any, quick: list[float]) -> None:
    text = '{"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "Quota exceeded for services"}}'
    cloud.faults.append(("POST", "/services", (429, text, {})))
    with pytest.raises(RemoteError, match="cannot deploy iris: a quota of p is used up: Quota exceeded") as caught:
        deploy()
    assert "quotas?project=p" in str(caught.value.hint)


# -- who may not ------------------------------------------------------------------------------------------------------


def test_a_permission_that_is_missing(deploy: Deploy, cloud: Any) -> None:
    cloud.lacking.add("run.services.create")
    with pytest.raises(AuthenticationError, match=r"the permission run\.services\.create in p is missing") as caught:
        deploy()
    assert caught.value.hint == "have roles/run.developer granted"
    text = (
        '{"error": {"code": 403, "status": "PERMISSION_DENIED", "message": '
        "\"Permission 'iam.serviceaccounts.actAs' denied on service account x@y (or it may not exist).\"}}"
    )
    cloud.lacking.clear()
    cloud.faults.append(("POST", "/services", (403, text, {})))
    with pytest.raises(AuthenticationError, match=r"the permission iam\.serviceaccounts\.actAs") as caught:
        deploy()
    assert "roles/iam.serviceAccountUser" in str(caught.value.hint)


def test_an_api_that_is_not_enabled(deploy: Deploy, cloud: Any) -> None:
    with pytest.raises(RemoteError, match="the Cloud Run API is not enabled in disabled") as caught:
        deploy("project=disabled")
    assert caught.value.hint == "gcloud services enable run.googleapis.com --project disabled"


def test_a_region_that_is_none(deploy: Deploy, cloud: Any) -> None:
    with pytest.raises(NotFoundError, match="Location europe-west99 is not found") as caught:
        deploy("region=europe-west99")
    assert "europe-west99" in str(caught.value.hint)


def test_a_body_that_is_refused(deploy: Deploy, cloud: Any) -> None:
    with pytest.raises(UsageError, match=r"cannot deploy iris: Cloud Run does not take it: .*GPU needs 4 CPU"):
        deploy("gpus=1", "cpu=2", "memory=8Gi")


def test_a_token_that_is_not_known(deploy: Deploy, cloud: Any) -> None:
    cloud.faults += [("GET", "/services/iris", (401, '{"error": {"code": 401, "message": "no"}}', {}))] * 9
    with pytest.raises(AuthenticationError, match="does not know the credentials") as caught:
        deploy()
    assert caught.value.hint == "gcloud auth application-default login"


def test_no_place(cloud: Any, bento: DeployBento, options: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CLOUDSDK_RUN_REGION")
    with pytest.raises(UsageError, match="no region is named"):
        target().plan(bento, options(f"image={IMAGE}:1"))
    with pytest.raises(UsageError, match="is no region's name"):
        target().plan(bento, options(f"image={IMAGE}:1", "region=../x"))


@pytest.mark.parametrize("content", ["", "{}", '{"type": "service_account"}', '{"type": "x"}', "[]", '"text"'])
def test_credentials_that_are_none(content: str, cloud: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from bentotool_cloudrun.account import login

    file = tmp_path / "bad.json"
    file.write_text(content)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
    with pytest.raises(AuthenticationError) as caught:
        login()
    assert "\n" not in caught.value.message


def test_a_token_is_sent_nowhere_in_the_clear(cloud: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUDSDK_API_ENDPOINT_OVERRIDES_RUN", "http://run.example/")
    with pytest.raises(UsageError, match="is no https:// address"):
        target().list()


def test_the_key_is_refused(deploy: Deploy, cloud: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import json

    file = tmp_path / "key.json"
    document = json.loads(file.read_text())
    file.write_text(json.dumps({**document, "token_uri": document["token_uri"].replace("/token", "/no-token")}))
    with pytest.raises(BentotoolError, match="the credentials are refused") as caught:
        deploy()
    assert "\n" not in caught.value.message


def test_pushes_are_logged_in_with_the_same_credentials(cloud: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from bentotool_cloudrun.hooks import bentotool_registry_credentials

    found = bentotool_registry_credentials("europe-west1-docker.pkg.dev")
    assert found is not None
    assert found.username == "oauth2accesstoken"
    assert found.password in cloud.tokens
    assert bentotool_registry_credentials("ghcr.io") is None
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS")
    assert bentotool_registry_credentials("gcr.io") is None
