"""The built-in commands, as data: root help and dispatch read this and import no command.

A target is ``module:function``. The function is imported when its command is chosen (or asked for its help); its
docstring's first line must equal the summary here, which a test checks.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["COMMANDS", "GROUPS", "PANELS", "CommandDecl", "GroupDecl"]


class CommandDecl(NamedTuple):
    """One command.

    Args:
        name: what the user types, words separated by one space (``"model import"``).
        target: ``"package.module:function"``; a function that typer can turn into a command.
        summary: one line, at most 72 characters, no final full stop.
        panel: heading in the help of the root.
    """

    name: str
    target: str
    summary: str
    panel: str = "Other"


class GroupDecl(NamedTuple):
    """A first word under which commands stand."""

    name: str
    summary: str
    panel: str


_START, _MODELS, _BENTOS, _REGISTRIES, _HOUSE = "Getting started", "Models", "Bentos", "Registries", "Housekeeping"
_TRUST = "Trust"
PANELS = (_START, _MODELS, _BENTOS, _TRUST, _REGISTRIES, _HOUSE)
"""Headings of the root's help, in this order; a plugin's own heading follows."""

GROUPS = (
    GroupDecl("model", "Import, list, move and inspect models", "Models"),
    GroupDecl("store", "Look after the store", "Housekeeping"),
    GroupDecl("plugin", "See the installed plugins", "Housekeeping"),
    GroupDecl("deployment", "Look after deployments", "Bentos"),
    GroupDecl("client", "Make clients of services", "Bentos"),
    GroupDecl("key", "Make keys to sign with", "Trust"),
    GroupDecl("policy", "Say what artifacts need, and see what they lack", "Trust"),
    GroupDecl("config", "See the settings in force", "Housekeeping"),
)

_HERE = "bentotool.cli.commands"

COMMANDS = (
    CommandDecl("quickstart", f"{_HERE}.quickstart:quickstart", "Make, build, serve and ask a small model", _START),
    CommandDecl("init", f"{_HERE}.init:init", "Make a new project that builds and serves at once", _START),
    CommandDecl("model import", f"{_HERE}.models:import_model", "Import a model into the store", _MODELS),
    CommandDecl(
        "model list",
        f"{_HERE}.models:list_models",
        "List the models in the store, or the tags of a repository",
        _MODELS,
    ),
    CommandDecl("model show", f"{_HERE}.models:show_model", "Show one model, or one artifact of a registry", _MODELS),
    CommandDecl("model path", f"{_HERE}.models:path_model", "Print a folder with the model's files", _MODELS),
    CommandDecl("model verify", f"{_HERE}.models:verify_model", "Check every byte of one model", _MODELS),
    CommandDecl("model tag", f"{_HERE}.models:tag_model", "Give a model another tag", _MODELS),
    CommandDecl("model delete", f"{_HERE}.models:delete_model", "Delete models from the store", _MODELS),
    CommandDecl("model export", f"{_HERE}.archives:export_model", "Write a model to an OCI archive", _MODELS),
    CommandDecl("model import-archive", f"{_HERE}.archives:import_model_archive", "Import a model's archive", _MODELS),
    CommandDecl("model push", f"{_HERE}.push:push_model", "Push a model to a registry", _MODELS),
    CommandDecl("model pull", f"{_HERE}.pull:pull_model", "Pull a model from a registry", _MODELS),
    CommandDecl(
        "model serve",
        f"{_HERE}.modelserve:serve_model",
        "Serve a model with no code: JSON and the Open Inference Protocol",
        _MODELS,
    ),
    CommandDecl("build", f"{_HERE}.build:build", "Build a Bento from a project", _BENTOS),
    CommandDecl("containerize", f"{_HERE}.containerize:containerize", "Make a container image of a Bento", _BENTOS),
    CommandDecl("serve", f"{_HERE}.serve:serve", "Serve a folder, a service or a Bento over HTTP", _BENTOS),
    CommandDecl("client gen", f"{_HERE}.client:generate_client", "Write a typed Python client of a service", _BENTOS),
    CommandDecl(
        "list", f"{_HERE}.bentos:list_bentos", "List the Bentos in the store, or the tags of a repository", _BENTOS
    ),
    CommandDecl("show", f"{_HERE}.bentos:show_bento", "Show one Bento, or one artifact of a registry", _BENTOS),
    CommandDecl("diff", f"{_HERE}.diff:diff", "Show what changed between two Bentos", _BENTOS),
    CommandDecl("sbom", f"{_HERE}.documents:sbom", "Print the bill of materials (SBOM) of a Bento", _BENTOS),
    CommandDecl(
        "provenance",
        f"{_HERE}.documents:provenance",
        "Print how and from what a Bento was built (SLSA provenance)",
        _BENTOS,
    ),
    CommandDecl("sign", f"{_HERE}.trust:sign", "Sign a Bento or model: index, Bento, images and models", _TRUST),
    CommandDecl("attest", f"{_HERE}.trust:attest", "Sign a statement about a Bento or model, and attach it", _TRUST),
    CommandDecl("verify", f"{_HERE}.verify:verify", "Check who signed a Bento or model, here or in a registry", _TRUST),
    CommandDecl("key new", f"{_HERE}.keys:new_key", "Make a pair of keys to sign and verify with", _TRUST),
    CommandDecl(
        "policy check",
        f"{_HERE}.policy:check_policy",
        "Say which rules are about an artifact, and what it lacks",
        _TRUST,
    ),
    CommandDecl(
        "policy show", f"{_HERE}.policy:show_policy", "Show the policies in force, and who put them in force", _TRUST
    ),
    CommandDecl("key public", f"{_HERE}.keys:public_key", "Print the public key of a key", _TRUST),
    CommandDecl(
        "deploy",
        f"{_HERE}.deploy:deploy",
        "Deploy a Bento and wait until it answers",
        _BENTOS,
    ),
    CommandDecl(
        "deployment list", f"{_HERE}.deployments:list_deployments", "List the deployments and how they are", _BENTOS
    ),
    CommandDecl(
        "deployment show",
        f"{_HERE}.deployments:show_deployment",
        "Show one deployment: how it is, and what was deployed before",
        _BENTOS,
    ),
    CommandDecl("deployment logs", f"{_HERE}.deployments:logs_deployment", "Print the logs of a deployment", _BENTOS),
    CommandDecl(
        "deployment history", f"{_HERE}.revisions:history_deployment", "List what was deployed under a name", _BENTOS
    ),
    CommandDecl(
        "deployment diff",
        f"{_HERE}.revisions:diff_deployment",
        "Show where what runs is not what was deployed",
        _BENTOS,
    ),
    CommandDecl(
        "deployment rollback",
        f"{_HERE}.revisions:rollback_deployment",
        "Deploy an earlier revision again, as it was",
        _BENTOS,
    ),
    CommandDecl(
        "deployment prune",
        f"{_HERE}.revisions:prune_deployments",
        "Remove images and the like that only old revisions needed",
        _BENTOS,
    ),
    CommandDecl(
        "deployment delete",
        f"{_HERE}.deployments:delete_deployment",
        "Stop a deployment and remove all that was made for it",
        _BENTOS,
    ),
    CommandDecl("path", f"{_HERE}.bentos:path_bento", "Print a folder with the Bento's files", _BENTOS),
    CommandDecl("tag", f"{_HERE}.bentos:tag_bento", "Give a Bento another tag", _BENTOS),
    CommandDecl("delete", f"{_HERE}.bentos:delete_bento", "Delete Bentos from the store", _BENTOS),
    CommandDecl(
        "prune",
        f"{_HERE}.bentos:prune_bentos",
        "Delete old Bentos from the store; further tagged ones stay",
        _BENTOS,
    ),
    CommandDecl("export", f"{_HERE}.archives:export_bento", "Write a Bento and its models to an OCI archive", _BENTOS),
    CommandDecl("import", f"{_HERE}.archives:import_bento_archive", "Import a Bento's archive", _BENTOS),
    CommandDecl("push", f"{_HERE}.push:push", "Push a Bento and its models to a registry", _REGISTRIES),
    CommandDecl("pull", f"{_HERE}.pull:pull", "Pull a Bento and its models from a registry", _REGISTRIES),
    CommandDecl("copy", f"{_HERE}.copy:copy", "Copy an artifact between registries, by mount or stream", _REGISTRIES),
    CommandDecl("login", f"{_HERE}.login:login", "Log in to a registry", _REGISTRIES),
    CommandDecl("logout", f"{_HERE}.login:logout", "Forget the credentials of a registry", _REGISTRIES),
    CommandDecl("store gc", f"{_HERE}.store:collect_store", "Remove what nothing in the store needs", _HOUSE),
    CommandDecl("store verify", f"{_HERE}.store:verify_store", "Check every byte in the store", _HOUSE),
    CommandDecl("store du", f"{_HERE}.store:measure_store", "Show what takes the store's space", _HOUSE),
    CommandDecl("plugin list", f"{_HERE}.plugins:list_plugins", "List the installed plugins and their state", _HOUSE),
    CommandDecl("config show", f"{_HERE}.config:show_config", "Show each setting and where it comes from", _HOUSE),
    CommandDecl("schema", f"{_HERE}.schema:schema", "Print the JSON schema of a configuration file", _HOUSE),
    CommandDecl("doctor", f"{_HERE}.doctor:doctor", "Check this machine and say what is missing", _HOUSE),
    CommandDecl("completion", f"{_HERE}.completion:completion", "Print a shell completion script", _HOUSE),
)
