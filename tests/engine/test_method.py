"""What every method is made of: traits in words, and no trace of the contract before them."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
from conftest import toy_recipe

from fpcli.engine.method import Method, NoMethodOptions, Traits
from fpcli.errors import UsageError
from fpcli.train.setup import prepare_run

FIRST = ["kind", "clients_differ", "sends_indices", "remembers_mask", "probe", "sparsifies"]
FIRST += ["trains_sparse", "keeps_buffers"]


@pytest.mark.parametrize("name", FIRST)
def test_a_method_of_the_first_contract_is_refused_when_it_is_defined(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        type("Old", (Method,), {name: "x", "__module__": "mine.old"})
    assert caught.value.exit_status == 2
    assert caught.value.message.startswith(f"method `mine.old:Old` has `{name}`")
    assert "traits" in caught.value.message
    assert 'README, "Adding a method"' in caught.value.hint
    assert caught.value.where == "mine.old"


def test_a_plan_for_a_single_client_is_of_the_first_contract() -> None:
    with pytest.raises(UsageError, match=r"has `plan\(ctx, state, client\)`"):
        type("Old", (Method,), {"plan": lambda self, ctx, state, client: None})


def test_what_a_method_defines_beside_its_hooks_is_its_own_affair() -> None:
    class Fine(Method):
        traits = Traits(cuts="weights")
        kinds = 3

    assert Fine().traits_of(NoMethodOptions()) == Traits(cuts="weights")


def test_an_old_method_in_a_file_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "oldfashioned.py").write_text(
        "from fpcli.engine.method import Method\n\nclass Mine(Method):\n    kind = 'dense'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UsageError) as caught:
        prepare_run(toy_recipe("oldfashioned:Mine"), tmp_path / "memory")
    assert caught.value.message.startswith("method `oldfashioned:Mine` has `kind`")
    assert "Adding a method" in caught.value.hint


def test_the_place_that_the_hint_names_exists() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
    assert "\n## Adding a method\n" in readme


def test_every_trait_has_words() -> None:
    """And a subject of its own, so that none hides another."""
    usual = Traits().to_words()
    assert usual.keys() == {"cuts", "sub-models", "models"}
    subjects: dict[str, str] = {}
    for name, hint in get_type_hints(Traits).items():
        for value in {*get_args(hint)} or {True, False}:
            words = Traits(**{name: value}).to_words()
            changed = [subject for subject in words if words[subject] != usual.get(subject)]
            assert len(changed) == (value != getattr(Traits(), name)), f"{name}: {value}"
            assert all(subjects.setdefault(subject, name) == name for subject in changed)
    assert len(subjects) == len(fields(Traits))
