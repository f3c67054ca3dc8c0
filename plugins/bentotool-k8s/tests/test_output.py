"""Kustomize bases and Helm charts: what comes of them is what would have been applied."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from bentotool_k8s.manifests import PLAIN, objects
from bentotool_k8s.output import files_of

from bentotool.errors import UsageError
from bentotool.targetspec import Plan

_spec = importlib.util.spec_from_file_location("k8s_golden", Path(__file__).parent / "golden" / "regenerate.py")
assert _spec is not None
assert _spec.loader is not None
regenerate = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(regenerate)
CASES = {case[0]: case for case in regenerate.cases()}
_ACTION = re.compile(r"(\s*)\{\{(-?) (.*?) ?\}\}", re.DOTALL)


def plan_of(name: str, **values: Any) -> Plan:
    _, _, bento, options, image, _ = CASES[name]
    there = SimpleNamespace(planned=lambda *args, **named: image, publish=lambda *args, **named: image)
    given = {**options.values, "registry": "ghcr.io/flowers", **values}
    return Plan("k8s", replace(bento, registry=there), replace(options, values=given), (), notes=(name,))


def made_by(plan: Plan, form: str) -> Mapping[str, str]:
    return files_of(PLAIN, plan, form, False)


def applied(plan: Plan) -> dict[tuple[str, str], Any]:
    """What would be applied."""
    _, _, _, _, image, _ = CASES[plan.notes[0]]
    return {known(each): plain(each) for each in objects(plan.bento, plan.options, image)}


class Template:
    """As much of Go's templates as a chart of ours is written with."""

    def __init__(self, text: str, root: Mapping[str, Any]) -> None:
        self._root = root
        self._parts: list[tuple[str, str]] = []
        end = 0
        for found in _ACTION.finditer(text):
            kept = text[end : found.start()] + ("" if found[2] else found[1])
            self._parts += [("text", kept), ("action", found[3].removesuffix("-").strip())]
            end = found.end()
        self._parts.append(("text", text[end:]))

    def render(self) -> str:
        text, rest = self._run(0, self._root)
        assert rest == len(self._parts)
        return text

    def _run(self, at: int, dot: Any) -> tuple[str, int]:
        said = ""
        while at < len(self._parts):
            kind, part = self._parts[at]
            word, _, rest = part.partition(" ")
            if kind == "text":
                said, at = said + part, at + 1
            elif part in ("end", "else"):
                return said, at
            elif word in ("range", "with", "if"):
                found = self._value(rest, dot)
                rounds = found if word == "range" else ([found if word == "with" else dot] if found else [])
                inner = "".join(self._run(at + 1, each)[0] for each in rounds)
                stop = self._end(at + 1)
                if self._parts[stop] == ("action", "else"):
                    inner = inner or self._run(stop + 1, dot)[0]
                    stop = self._end(stop + 1)
                said, at = said + inner, stop + 1
            else:
                said, at = said + str(self._value(part, dot)), at + 1
        return said, at

    def _end(self, at: int) -> int:
        """Where the part that begins here ends."""
        depth = 0
        while depth or self._parts[at] not in (("action", "end"), ("action", "else")):
            kind, part = self._parts[at]
            if kind == "action":
                depth += (part.partition(" ")[0] in ("range", "with", "if")) - (part == "end")
            at += 1
        return at

    def _value(self, expression: str, dot: Any) -> Any:
        head, *pipes = (part.strip() for part in expression.split("|"))
        if head.startswith("/*"):
            return ""
        if head.startswith('"'):
            return json.loads(head)
        if head.startswith("fail"):
            raise AssertionError(head)
        if found := re.fullmatch(r"gt \(len (\S+)\) (\d+)", head):
            return len(self._value(found[1], dot)) > int(found[2])
        value = self._path(head.removeprefix("toYaml "), dot)
        for pipe in pipes:
            if pipe == "quote":
                value = json.dumps(value)
            elif found := re.fullmatch(r"nindent (\d+)", pipe):
                lines = yaml.safe_dump(value, sort_keys=False).rstrip("\n").split("\n")
                value = "".join(f"\n{' ' * int(found[1])}{line}" for line in lines)
        return value

    def _path(self, text: str, dot: Any) -> Any:
        if text == ".":
            return dot
        if found := re.fullmatch(r'\(index (\S+) "([^"]+)"\)(.*)', text):
            return self._path(found[3] or ".", self._path(found[1], dot)[found[2]])
        value = self._root if text.startswith("$") else dot
        for name in text.removeprefix("$").strip(".").split("."):
            value = value[name]
        return value


def released(files: Mapping[str, str], name: str, **values: Any) -> Iterator[Any]:
    """What a chart makes of its templates."""
    root = {"Values": {**yaml.safe_load(files["values.yaml"]), **values}, "Release": {"Name": name, "Service": "Helm"}}
    for path, text in files.items():
        if path.startswith("templates/"):
            yield from filter(None, yaml.safe_load_all(Template(text, root).render()))


def known(item: Any) -> tuple[str, str]:
    return item["kind"], item["metadata"]["name"]


def plain(item: Any) -> Any:
    """An object as it counts: without what stands for nothing, and variables in one order."""
    found = json.loads(
        json.dumps(item).replace(
            '"app.kubernetes.io/managed-by": "Helm"', '"app.kubernetes.io/managed-by": "bentotool"'
        )
    )
    if found["kind"] == "Deployment":
        pod = found["spec"]["template"]["spec"]
        for key in ("nodeSelector", "tolerations", "imagePullSecrets"):
            if not pod.get(key):
                pod.pop(key, None)
        pod["containers"][0]["env"].sort(key=lambda each: each["name"])
    return found


@pytest.mark.parametrize("name", CASES)
def test_a_chart_makes_what_would_be_applied(name: str) -> None:
    plan = plan_of(name, namespace=None)
    files = made_by(plan, "helm")
    made = {known(each): plain(each) for each in released(files, plan.name)}
    assert made == applied(plan)
    about = yaml.safe_load(files["Chart.yaml"])
    assert (about["name"], about["appVersion"]) == (plan.name, plan.bento.version)
    assert re.fullmatch(r"\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?", about["version"])


def test_values_change_what_a_chart_makes() -> None:
    files = made_by(plan_of("ingress"), "helm")
    values = yaml.safe_load(files["values.yaml"])
    env, tolerations = [{"name": "LEVEL", "value": "debug"}], [{"key": "spot"}]
    values["services"]["iris"] |= {"replicas": 4, "env": env, "tolerations": tolerations}
    values["image"] = {"repository": "mirror.example.com/iris", "tag": "2", "digest": ""}
    values["hosts"] = ["a.example", "b.example"]
    made = {known(each): each for each in released(files, "other", **values)}
    spec = made["Deployment", "other"]["spec"]
    pod = spec["template"]["spec"]
    assert (spec["replicas"], pod["containers"][0]["image"]) == (4, "mirror.example.com/iris:2")
    assert env[0] in pod["containers"][0]["env"]
    assert pod["tolerations"] == tolerations
    outside = made["Ingress", "other"]["spec"]
    assert [rule["host"] for rule in outside["rules"]] == outside["tls"][0]["hosts"] == ["a.example", "b.example"]


def test_what_looks_like_a_template_stays_as_it_is() -> None:
    plan = plan_of("one-service")
    odd = {"name": "JINJA", "value": "{{ .Values.secret }} }}"}
    plan = replace(plan, options=replace(plan.options, env={odd["name"]: odd["value"]}))
    (found,) = [each for each in released(made_by(plan, "helm"), "x") if each["kind"] == "Deployment"]
    assert odd in found["spec"]["template"]["spec"]["containers"][0]["env"]


def test_a_chart_leaves_the_namespace_to_helm() -> None:
    with pytest.raises(UsageError, match="no namespace of its own"):
        made_by(plan_of("graph", namespace="ml"), "helm")
    with pytest.raises(AssertionError, match="more than 51 characters"):
        list(released(made_by(plan_of("graph"), "helm"), "r" * 53))


@pytest.mark.parametrize("name", ["one-service", "graph-sized", "ingress", "keda-to-zero"])
def test_kustomize_takes_a_base(name: str, tmp_path: Path, require_tool: Callable[[str], str]) -> None:
    kubectl = require_tool("kubectl")
    plan = plan_of(name)
    for path, text in made_by(plan, "kustomize").items():
        (tmp_path / path).write_text(text, encoding="utf-8")
    done = subprocess.run(
        [kubectl, "kustomize", str(tmp_path)], capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 0, done.stderr
    assert {known(each): plain(each) for each in yaml.safe_load_all(done.stdout)} == applied(plan)


@pytest.mark.parametrize("name", ["one-service", "graph-sized", "ingress", "keda-to-zero"])
def test_helm_takes_a_chart(name: str, tmp_path: Path, require_tool: Callable[[str], str]) -> None:
    helm = require_tool("helm")
    plan = plan_of(name)
    for path, text in made_by(plan, "helm").items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text, encoding="utf-8")
    done = subprocess.run(
        [helm, "template", plan.name, str(tmp_path)], capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 0, done.stderr
    made = {known(each): plain(each) for each in yaml.safe_load_all(done.stdout) if each}
    assert made == applied(plan)


def test_each_form_is_written() -> None:
    plan = plan_of("graph", namespace=None)
    assert list(made_by(plan, "manifests")) == ["iris.yaml"]
    assert "kustomization.yaml" in made_by(plan, "kustomize")
    assert {"Chart.yaml", "values.yaml"} <= made_by(plan, "helm").keys()


@pytest.mark.parametrize("version", ["1e5", "083912345678", "0o17", "1_000", "on"])
@pytest.mark.parametrize("form", ["manifests", "kustomize", "helm"])
def test_a_version_that_looks_like_something_else_is_text_in_every_form(form: str, version: str) -> None:
    plan = plan_of("graph", namespace=None)
    files = made_by(replace(plan, bento=replace(plan.bento, version=version)), form)
    assert sum(text.count(f": '{version}'") for text in files.values()) > 3
    for text in files.values():
        assert not re.search(rf"[:-] {version}$", text, re.MULTILINE)


def test_a_release_may_have_a_name_that_looks_like_something_else() -> None:
    made = list(released(made_by(plan_of("graph"), "helm"), "on"))
    assert "on" in {each["metadata"]["name"] for each in made}
