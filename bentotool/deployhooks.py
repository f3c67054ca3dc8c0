"""The hooks of deploying; :mod:`bentotool.hookspecs` has them beside all others."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from bentotool.hookmarkers import hookspec

if TYPE_CHECKING:
    from bentotool.targetspec import TargetDecl

__all__ = ["bentotool_after_deploy", "bentotool_before_deploy", "bentotool_targets"]


@hookspec
def bentotool_targets() -> Iterable[TargetDecl]:
    """Declare places that Bentos are deployed to.

    When:
        ``bentotool deploy`` and ``bentotool deployment``; once per process.

    Arguments:
        None.

    Return:
        :class:`~bentotool.targetspec.TargetDecl` records. Two plugins that declare one name are an error.

    Example::

        from bentotool.hookspecs import hookimpl
        from bentotool.targetspec import OptionSpec, TargetDecl

        @hookimpl
        def bentotool_targets():
            replicas = OptionSpec("replicas", "integer", "How many run at once", default=1)
            return [TargetDecl("attic", "my_plugin.attic:Attic", "The machine in the attic", options=(replicas,))]
    """
    raise NotImplementedError


@hookspec
def bentotool_before_deploy(target: str, plan: object) -> None:
    """Allow or veto a deployment.

    When:
        The plan is made, and nothing of it applied; not for ``--dry-run``.

    Arguments:
        ``target``: name of the target.
        ``plan``: :class:`~bentotool.targetspec.Plan`, with ``name``, ``bento`` and ``resources``.

    Return:
        Nothing. To veto, raise a :class:`~bentotool.errors.BentotoolError`; any other exception stops the work too.

    Example::

        from bentotool.errors import UnsafeError
        from bentotool.hookspecs import hookimpl

        @hookimpl
        def bentotool_before_deploy(target, plan):
            if target == "attic" and plan.bento.version.endswith("-draft"):
                raise UnsafeError(f"{plan.bento.tag} is a draft", hint="build it again without -draft")
    """
    raise NotImplementedError


@hookspec
def bentotool_after_deploy(target: str, result: object) -> None:
    """Hear that a Bento was deployed.

    When:
        It runs, or with ``--no-wait`` was started. A failure is a warning: the deployment has happened.

    Arguments:
        ``target``: name of the target.
        ``result``: :class:`~bentotool.targetspec.Deployment`, with ``name``, ``status``, ``url`` and ``tag``.

    Return:
        Nothing.

    Example::

        from bentotool.hookspecs import hookimpl

        @hookimpl
        def bentotool_after_deploy(target, result):
            print(target, result.name, result.url)
    """
    raise NotImplementedError
