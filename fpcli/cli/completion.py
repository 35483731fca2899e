"""Completion: the words that Tab offers, and the scripts that ask a shell to offer them.

All scripts ask alike: the line up to the cursor goes into ``_TYPER_COMPLETE_ARGS``, and a line
comes back per word, with its meaning behind a tab. Bash begins a new word behind ``=``, ``:`` and
``@`` too, so what stands before them is taken off again.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Literal, get_args, get_origin

import typer
from typer.completion import completion_init, install

from fpcli import plugins
from fpcli.cli.session import emit
from fpcli.errors import FpError, UsageError, suggest
from fpcli.files import cannot_write, write_atomic
from fpcli.models.names import complete as complete_models
from fpcli.settings.flags import Flag
from fpcli.settings.keys import Leaf, list_leaves
from fpcli.settings.recipes import RECIPE_KINDS, Recipe

Completer = Callable[..., Iterable[str | tuple[str, str]]]
"""Of the context and the word so far; gives words, perhaps with what each means."""

_LINE = "_TYPER_COMPLETE_ARGS"
_ASK = f"_FP_COMPLETE=complete_fish _TYPER_COMPLETE_FISH_ACTION=get-args {_LINE}="
SCRIPTS: Mapping[str, str] = {
    "bash": f"""\
_fp_completion() {{
    local line="${{COMP_LINE:0:COMP_POINT}}"
    local word="${{line##*[[:space:]]}}"
    local before="${{word%"${{word##*[=:@]}}"}}"
    mapfile -t COMPREPLY < <({_ASK}"$line" "$1" 2>/dev/null | cut -f 1)
    COMPREPLY=("${{COMPREPLY[@]#"$before"}}")
    [[ "${{COMPREPLY[0]}}" != *[=/] ]] || compopt -o nospace 2>/dev/null
}}
complete -o default -F _fp_completion fp
""",
    "zsh": f"""\
#compdef fp
_fp_completion() {{
    local -a lines keys words_there
    lines=("${{(@f)$({_ASK}"${{(j: :)words[1,CURRENT]}}" "$words[1]" 2>/dev/null)}}")
    lines=(${{${{lines//:/\\\\:}}//$'\\t'/:}})
    (( $#lines )) || {{ _files; return }}
    keys=(${{(M)lines:#[^:]#=(|:*)}})
    words_there=(${{lines:|keys}})
    _describe value keys -S ''
    _describe value words_there
}}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _fp_completion "$@"
else
    (( $+functions[compdef] )) || {{ autoload -Uz compinit; compinit }}
    compdef _fp_completion fp
fi
""",
    "fish": f"""\
function _fp_words
    set --local lines (env {_ASK}(commandline -cp | string collect) fp 2>/dev/null)
    if test -n "$lines"
        printf '%s\\n' $lines
    else
        __fish_complete_path (commandline -ct)
    end
end
complete --command fp --no-files --arguments '(_fp_words)'
""",
}
"""Shell -> what it has to run for `fp` to be completed."""


def prepare_completion() -> None:
    """Let a shell be answered; ``fp resume RUN`` is completed as what it stands for."""
    if "_FP_COMPLETE" in os.environ:
        completion_init()
    if line := os.environ.get(_LINE):
        os.environ[_LINE] = re.sub(r"^(\s*\S+\s+)resume(?=\s)", r"\1train --resume", line)
        os.environ["COLUMNS"] = "10000"  # a meaning is one line


def show_script(shell: str | None) -> None:
    """Print what `eval` or `source` switches completion on with, and end.

    Raises:
        UsageError: there is none for that shell.
    """
    if shell is not None:
        emit(_find_script(shell).rstrip("\n"))
        raise typer.Exit


def install_script(shell: str | None) -> None:
    """Put that where the shell reads it when it starts, and end.

    Raises:
        UsageError: there is none for that shell.
        NeedError: the file cannot be written.
    """
    if shell is not None:
        script = _find_script(shell)
        try:
            _, path = install(shell, "fp")
        except OSError as error:
            raise cannot_write(Path(error.filename or Path.home()), error) from error
        write_atomic(path, script)
        emit(f"wrote {path}: new shells complete `fp`")
        raise typer.Exit


def _find_script(shell: str) -> str:
    if shell not in SCRIPTS:
        hint = suggest(shell, SCRIPTS) or f"known: {', '.join(SCRIPTS)}"
        raise UsageError(f"no completion for the shell `{shell}`", hint=hint, where=shell)
    return SCRIPTS[shell]


def find_completer(flag: Flag) -> Completer | None:
    """Return what completes the value of an option or argument, if anything does."""
    if not flag.known:
        return None
    if not isinstance(flag.known, str):
        return complete_words(*flag.known)
    return _COMPLETERS.get(flag.known) or complete_names(flag.known)


def complete_names(kind: str) -> Callable[[str], list[str]]:
    """Return a completer for the names of one kind of thing."""

    def beginning(incomplete: str) -> list[str]:
        return [name for name in plugins.list_names(kind) if name.startswith(incomplete)]

    return beginning


def complete_words(*known: str) -> Callable[[str], list[str]]:
    """Return a completer for a few fixed words."""
    return lambda incomplete: [word for word in known if word.startswith(incomplete)]


def _complete_recipes(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the shipped recipes that are for the command."""
    from fpcli.recipe.load import find_command, name_shipped

    return [
        name
        for name, path in name_shipped().items()
        if name.startswith(incomplete)
        and (ctx.command.name not in RECIPE_KINDS or find_command(path) == ctx.command.name)
    ]


def _complete_runs(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the folders of runs, or their names where the word is the beginning of one."""
    from fpcli.store.run_folder import list_runs

    folders = list_runs(Path(ctx.params.get("runs") or "runs"))
    paths = complete_words(*map(str, folders))(incomplete)
    return paths or complete_words(*(folder.name for folder in folders))(incomplete)


def _complete_sources(ctx: typer.Context, incomplete: str) -> list[str]:
    return [*_complete_runs(ctx, incomplete), *complete_models(incomplete)]


def _complete_settings(ctx: typer.Context, incomplete: str) -> Iterator[str | tuple[str, str]]:
    """Yield ``KEY=`` with its meaning, or behind that ``KEY=VALUE``, where values are words."""
    from fpcli.recipe.editor import list_keys

    recipe = RECIPE_KINDS.get(ctx.command.name or "", Recipe)
    leaves = list_leaves(recipe)
    options = _find_options(ctx, leaves.get("method.name"))
    key, equals, text = incomplete.partition("=")
    if not equals:
        rows = list_keys(recipe, options)
        yield from ((f"{row.name}=", row.doc) for row in rows if row.name.startswith(incomplete))
        return
    if options:
        leaves |= list_leaves(options, "method.")
    if leaf := leaves.get(key):
        words = get_args(leaf.hint) if get_origin(leaf.hint) is Literal else ()
        complete = (leaf.flag and find_completer(leaf.flag)) or complete_words(*words)
        yield from (f"{key}={word}" for word in complete(text))


def _find_options(ctx: typer.Context, choice: Leaf | None) -> type | None:
    """Return the options of the method that a line names, if it is one of ours.

    Code of others is not run while somebody types.
    """
    from fpcli.recipe.load import find_recipe, read_settings
    from fpcli.settings.declared import describe

    if choice is None or choice.flag is None:
        return None
    name = "unlearn" if ctx.command.name == "unlearn" else ctx.params.get("method")
    if name is None and (file := ctx.params.get("recipe")):
        with suppress(FpError):
            setting = read_settings(find_recipe(file)).get("method.name")
            name = setting and str(setting.value)
    kind, name = str(choice.flag.known), name or choice.default
    options: type | None = None
    if plugins.is_shipped(kind, name):
        options = describe(kind, name).Options
    return options


_COMPLETERS: Mapping[str, Completer] = {
    "models": complete_models,
    "recipes": _complete_recipes,
    "runs": _complete_runs,
    "settings": _complete_settings,
    "sources": _complete_sources,
}
"""What ``known`` may say of a flag beside a kind of ``plugins.TABLES``."""
