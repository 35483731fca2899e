from __future__ import annotations

import re
from typing import Any

from typer.main import get_command

from fpcli.cli import options
from fpcli.cli.app import app
from fpcli.recipe.load import flag_name, flatten, load

WORDS = {"10m": "600.0", "none": "None", "auto": "0", "the data's usual one": "digits-cnn"}


def commands() -> dict[str, Any]:
    return get_command(app).commands  # type: ignore[attr-defined]


def test_defaults_in_the_help_are_those_of_the_schema() -> None:
    defaults = flatten(load(None))
    defaults["executor.workers"] = "auto"
    checked = 0
    for parameter in commands()["train"].params:
        key = options.KEYS.get(parameter.name)
        if key is None or key == "task.data_dir":
            continue
        (said,) = re.findall(r"\(default: (.*)\)\.$", parameter.help)
        actual = str(defaults[key])
        assert WORDS.get(said, said) == actual or said == actual, key
        checked += 1
    assert checked == len(options.KEYS) - 1


def test_names_of_options_are_those_in_the_loader_s_messages() -> None:
    written = {p.name: p.opts for p in commands()["train"].params}
    for name, key in options.KEYS.items():
        assert flag_name(key) in written[name]


def test_every_option_has_help_and_a_panel() -> None:
    for command in commands().values():
        for parameter in command.params:
            assert parameter.help and parameter.help.endswith("."), parameter.name
    panels = {p.rich_help_panel for p in commands()["train"].params}
    assert panels == {"Task", "Method", "Training", "Fleet", "Run", "Output"}
