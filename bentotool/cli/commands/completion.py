"""``bentotool completion``."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import typer

from bentotool.cli.state import current

__all__ = ["Shell", "completion"]


class Shell(str, Enum):
    """Shells with a completion script."""

    bash = "bash"
    zsh = "zsh"
    fish = "fish"
    powershell = "powershell"


_INSTALL = {
    Shell.bash: "bentotool completion bash > ~/.local/share/bash-completion/completions/bentotool",
    Shell.zsh: "bentotool completion zsh > ~/.zfunc/_bentotool   # with ~/.zfunc in fpath before compinit",
    Shell.fish: "bentotool completion fish > ~/.config/fish/completions/bentotool.fish",
    Shell.powershell: "bentotool completion powershell >> $PROFILE",
}


_ZSH_REGISTERS = "compdef _bentotool_completion bentotool"
_ZSH_ANSWERS = f"""\
# zsh loads this file from fpath at the first TAB, and takes its body for the function that answers it
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
  _bentotool_completion "$@"
fi
{_ZSH_REGISTERS}"""


def completion(shell: Annotated[Shell, typer.Argument(metavar="SHELL", help="bash, zsh, fish or powershell.")]) -> None:
    """Print a shell completion script"""
    from typer.completion import get_completion_script  # type: ignore[attr-defined]  # not re-exported by name

    state = current()
    script = get_completion_script(prog_name="bentotool", complete_var="_BENTOTOOL_COMPLETE", shell=shell.value)
    if shell is Shell.zsh:
        script = script.replace(_ZSH_REGISTERS, _ZSH_ANSWERS)
    state.console.result({"shell": shell.value, "script": script, "install": _INSTALL[shell]}, script)
