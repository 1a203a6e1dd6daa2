"""`hushgrad completion`: completion of commands and options in a shell."""

from __future__ import annotations

import sys
from enum import Enum
from typing import Annotated

import typer

from hushgrad.cli.output import Json, print_json


class Shell(str, Enum):
    """Shells that can be completed in."""

    bash = "bash"
    zsh = "zsh"
    fish = "fish"


_SCRIPTS = {
    Shell.bash: """\
_hushgrad_completion() {
    local IFS=$'\\n'
    COMPREPLY=($(env COMP_WORDS="${COMP_WORDS[*]}" COMP_CWORD="$COMP_CWORD" _HUSHGRAD_COMPLETE=complete_bash "$1" 2>/dev/null))
}
complete -o default -F _hushgrad_completion hushgrad
""",
    Shell.zsh: """\
#compdef hushgrad
_hushgrad_completion() {
    eval $(env _TYPER_COMPLETE_ARGS="${words[1,$CURRENT]}" _HUSHGRAD_COMPLETE=complete_zsh hushgrad 2>/dev/null)
}
compdef _hushgrad_completion hushgrad
""",
    Shell.fish: """\
function __hushgrad_completion
    env _HUSHGRAD_COMPLETE=complete_fish _TYPER_COMPLETE_FISH_ACTION=$argv[1] _TYPER_COMPLETE_ARGS=(commandline -cp) hushgrad 2>/dev/null
end
complete --command hushgrad --no-files --arguments "(__hushgrad_completion get-args)" --condition "__hushgrad_completion is-args"
""",
}


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("completion")(completion)


def completion(
    shell: Annotated[Shell, typer.Argument(help="The shell.")],
    json: Json = False,
) -> None:
    """Print the script that completes commands and options in a shell.

    For this session: `source <(hushgrad completion bash)`, or `hushgrad completion fish | source`. For good: write it to
    ~/.local/share/bash-completion/completions/hushgrad, to a file _hushgrad in a folder of zsh's fpath, or to
    ~/.config/fish/completions/hushgrad.fish.
    """
    if json:
        print_json({"script": _SCRIPTS[shell], "shell": shell.value})
    else:
        sys.stdout.write(_SCRIPTS[shell])
