"""The hooks: everything a plugin can do, one documented function each.

A plugin is a module (or object) named by an entry point of the group ``bentotool``. It implements any of these
functions, marked with :data:`hookimpl`, and may leave out arguments it does not need. Declaration hooks do no I/O
and import nothing heavy. An argument may be added to a hook later; none is ever removed or renamed.

A plugin that fails to import, breaks a contract or raises is named in a warning and does not stop the others, except
where a hook's text says that its failure stops the work. Hook wrappers are refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from bentotool.deployhooks import bentotool_after_deploy, bentotool_before_deploy, bentotool_targets
from bentotool.hookmarkers import PROJECT, hookimpl, hookspec
from bentotool.trusthooks import bentotool_signers, bentotool_signing_identity

if TYPE_CHECKING:
    from bentotool.imagespec import ImageBuilderDecl
    from bentotool.interfaces import (
        ArchiveDecl,
        CommandDecl,
        Credentials,
        FrameworkDecl,
        PlanAddition,
        SourceDecl,
        SourceFile,
        TemplateDecl,
    )

__all__ = [
    "PROJECT", "bentotool_after_deploy", "bentotool_before_deploy", "bentotool_signers", "bentotool_signing_identity",
    "bentotool_targets", "hookimpl", "hookspec",
]  # fmt: skip


@hookspec
def bentotool_frameworks() -> Iterable[FrameworkDecl]:
    """Declare framework plugins.

    When:
        A model is imported, saved, described or loaded, or frameworks are listed; once per process.

    Arguments:
        None.

    Return:
        :class:`~bentotool.interfaces.FrameworkDecl` records. Two plugins that declare one name are an error.

    Example::

        from bentotool.hookspecs import hookimpl
        from bentotool.interfaces import FrameworkDecl

        @hookimpl
        def bentotool_frameworks():
            yield FrameworkDecl(
                name="text",
                target="my_plugin.framework:TextFramework",
                loader="my_plugin.loader",
                summary="Plain text models",
                suffixes=(".txtmodel",),
            )
    """
    raise NotImplementedError


@hookspec
def bentotool_sources() -> Iterable[SourceDecl]:
    """Declare places that models come from.

    When:
        ``bentotool model import`` is given a URI whose scheme is not built in; once per process.

    Arguments:
        None.

    Return:
        :class:`~bentotool.interfaces.SourceDecl` records. Two plugins that declare one scheme are an error.

    Example::

        from bentotool.hookspecs import hookimpl
        from bentotool.interfaces import SourceDecl

        @hookimpl
        def bentotool_sources():
            return [SourceDecl("greeting", "my_plugin.source:Greeting", "A model that greets", schemes=("hello",))]
    """
    raise NotImplementedError


@hookspec
def bentotool_archives() -> Iterable[ArchiveDecl]:
    """Declare files of other tools that ``bentotool import`` builds a Bento from.

    When:
        ``bentotool import`` is given a file that is no archive of bentotool's own; once per process.

    Arguments:
        None.

    Return:
        :class:`~bentotool.interfaces.ArchiveDecl` records. Two plugins that declare one suffix are an error.

    Example::

        from bentotool.hookspecs import hookimpl
        from bentotool.interfaces import ArchiveDecl

        @hookimpl
        def bentotool_archives():
            return [ArchiveDecl("crate", "my_plugin.crate:Crate", "Crates of that tool", suffixes=(".crate",))]
    """
    raise NotImplementedError


@hookspec
def bentotool_commands() -> Iterable[CommandDecl]:
    """Declare commands of the ``bentotool`` command line.

    When:
        The command line lists commands, or meets one that is not its own; once per process.

    Arguments:
        None.

    Return:
        :class:`~bentotool.interfaces.CommandDecl` records. A name that is taken is not offered, and a warning says
        by whom.

    Example::

        from bentotool.hookspecs import hookimpl
        from bentotool.interfaces import CommandDecl

        @hookimpl
        def bentotool_commands():
            return [CommandDecl("hello", "my_plugin.cli:hello", "Say hello.")]
    """
    raise NotImplementedError


@hookspec
def bentotool_templates() -> Iterable[TemplateDecl]:
    """Declare project templates.

    When:
        ``bentotool init --template`` or ``--list``.

    Arguments:
        None.

    Return:
        :class:`~bentotool.interfaces.TemplateDecl` records. Two plugins that declare one name are an error.

    Example::

        from bentotool.hookspecs import hookimpl
        from bentotool.interfaces import TemplateDecl

        @hookimpl
        def bentotool_templates():
            return [TemplateDecl("vision", package="my_plugin", path="templates/vision", summary="An image classifier")]
    """
    raise NotImplementedError


@hookspec
def bentotool_image_builders() -> Iterable[ImageBuilderDecl]:
    """Declare builders of container images, beside the built-in ``oci``.

    When:
        ``bentotool containerize``; once per process.

    Arguments:
        None.

    Return:
        :class:`~bentotool.imagespec.ImageBuilderDecl` records. Two plugins that declare one name are an error.

    Example::

        from bentotool.hookspecs import hookimpl
        from bentotool.imagespec import ImageBuilderDecl

        @hookimpl
        def bentotool_image_builders():
            return [ImageBuilderDecl("kiln", "my_plugin.kiln:Kiln", "Bakes images")]
    """
    raise NotImplementedError


@hookspec(firstresult=True)
def bentotool_identify_model(files: Sequence[SourceFile]) -> str | None:
    """Name the framework of a model where suffix and first bytes do not tell.

    When:
        A model is imported without ``--framework``, before the frameworks themselves are asked.

    Arguments:
        ``files``: all files of the model; content is hostile, so look at structure and execute nothing.

    Return:
        The name of a declared framework, or None: not known. The first answer counts.

    Example::

        from bentotool.hookspecs import hookimpl

        @hookimpl
        def bentotool_identify_model(files):
            return "text" if any(file.name == "vocabulary.txt" for file in files) else None
    """
    raise NotImplementedError


@hookspec(firstresult=True)
def bentotool_registry_credentials(registry: str, repository: str, actions: Sequence[str]) -> Credentials | None:
    """Give credentials for a registry.

    When:
        Before the first request to a repository that asks for a login, ahead of the Docker configuration.

    Arguments:
        ``registry``: host and port, as in ``ghcr.io`` or ``localhost:5000``.
        ``repository``: path inside the registry.
        ``actions``: what is wanted, of ``pull``, ``push``, ``delete``.

    Return:
        :class:`~bentotool.interfaces.Credentials`, or None: not mine. The first answer counts.

    Example::

        from bentotool.hookspecs import hookimpl
        from bentotool.interfaces import Credentials

        @hookimpl
        def bentotool_registry_credentials(registry):
            return Credentials("ada", identity_token="...") if registry == "registry.example" else None
    """
    raise NotImplementedError


@hookspec
def bentotool_plan_build(config: Mapping[str, object], models: Sequence[object]) -> PlanAddition | None:
    """Add files, requirements, environment variables or labels to a Bento.

    When:
        A build has read its configuration and resolved its models, before it locks and packs. A failure stops the
        build: a Bento without what a plugin adds would be another Bento.

    Arguments:
        ``config``: the build configuration, as read-only data.
        ``models``: the models of the Bento, with ``name``, ``version``, ``digest`` and ``framework``.

    Return:
        :class:`~bentotool.interfaces.PlanAddition`, or None: nothing. Two plugins that give one file, variable or label
        different values, or ask for versions of a package that exclude each other, are an error that names both. A
        file that the project has is an error too; over labels and variables the configuration decides.

    Example::

        from bentotool.hookspecs import hookimpl
        from bentotool.interfaces import PlanAddition

        @hookimpl
        def bentotool_plan_build(models):
            return PlanAddition(labels={"models": str(len(models))})
    """
    raise NotImplementedError


@hookspec
def bentotool_base_image(plan: Mapping[str, object]) -> str | None:
    """Choose the base image that container images of a Bento start from.

    When:
        A Bento is planned and neither its configuration nor its service names a base image; what is chosen is recorded
        in the Bento. A failure stops the build: an image on another base would be another image.

    Arguments:
        ``plan``: the plan as ``build --dry-run --json`` prints it: ``name``, ``python``, ``platform``, ``image``
        (``distro``, ``cuda_version``, …), ``models`` and the rest.

    Return:
        An image reference such as ``registry.example/base:1``, or None: no opinion. Different answers of two plugins
        stop the build.

    Example::

        from bentotool.hookspecs import hookimpl

        @hookimpl
        def bentotool_base_image(plan):
            return f"registry.example/python:{plan['python']}" if plan["platform"] == "linux/amd64" else None
    """
    raise NotImplementedError


@hookspec
def bentotool_after_build(bento: object) -> None:
    """Hear that a Bento was built and stored.

    When:
        After a build that made something. A failure is a warning: the Bento is there.

    Arguments:
        ``bento``: the stored Bento, with ``name``, ``version``, ``tag``, ``digest`` and ``size``.

    Return:
        Nothing.

    Example::

        from bentotool.hookspecs import hookimpl

        @hookimpl
        def bentotool_after_build(bento):
            print(bento.digest)
    """
    raise NotImplementedError


@hookspec
def bentotool_before_push(artifact: object) -> None:
    """Allow or veto a push.

    When:
        Before the first byte goes to a registry.

    Arguments:
        ``artifact``: the stored Bento or model, with ``name``, ``version``, ``tag``, ``digest`` and ``size``.

    Return:
        Nothing. To veto, raise a :class:`~bentotool.errors.BentotoolError`; any other exception stops the push too.

    Example::

        from bentotool.errors import UnsafeError
        from bentotool.hookspecs import hookimpl

        @hookimpl
        def bentotool_before_push(artifact):
            if artifact.version.endswith("-draft"):
                raise UnsafeError(f"{artifact.tag} is a draft", hint="build it again without -draft")
    """
    raise NotImplementedError


@hookspec
def bentotool_after_push(artifact: object, digest: str) -> None:
    """Hear that an artifact was pushed.

    When:
        After the tag was set in the registry. A failure is a warning: the push has happened.

    Arguments:
        ``artifact``: as in ``bentotool_before_push``.
        ``digest``: ``sha256:...`` of what the tag now points to.

    Return:
        Nothing.

    Example::

        from bentotool.hookspecs import hookimpl

        @hookimpl
        def bentotool_after_push(digest):
            print(digest)
    """
    raise NotImplementedError


@hookspec
def bentotool_runtime_middleware(service: str) -> Iterable[str]:
    """Name ASGI middleware to run in front of a service.

    When:
        A Bento is built; the names are recorded in it, since the runtime knows no plugins. A failure stops the build: a
        service without its authentication must not come out of it.

    Arguments:
        ``service``: import string of the service, as in ``service:Iris``.

    Return:
        Dotted targets ``"package.module:attribute"`` of ASGI middleware, outermost first.

    Example::

        from bentotool.hookspecs import hookimpl

        @hookimpl
        def bentotool_runtime_middleware(service):
            return ["my_plugin.middleware:TenantHeader"]
    """
    raise NotImplementedError
