from __future__ import annotations

from typing import Any

from fpcli import methods
from fpcli.methods.fedmp import Options
from fpcli.recipe.editor import list_keys, make_json_schema
from fpcli.recipe.load import flatten, load_recipe


def keys_of(schema: dict[str, Any], part: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return dotted key -> its schema, of everything but the method's options."""
    found = {}
    for name, about in part["properties"].items():
        target = about.get("$ref", "").rpartition("/")[2]
        if target and target != "MethodChoice":
            found |= keys_of(schema, schema["$defs"][target], f"{prefix}{name}.")
        else:
            found[prefix + name] = about
    return found


def test_the_schema_has_every_key_and_no_other() -> None:
    schema = make_json_schema()
    keys = keys_of(schema, schema)
    ours = {key for key in flatten(load_recipe(None)) if not key.startswith("method.")}
    assert keys.keys() == ours | {"method"}
    assert all(about["description"] for about in keys.values())
    assert keys["task.partition.alpha"]["exclusiveMinimum"] == 0
    assert keys["executor.kind"]["enum"] == ["auto", "inline", "pool"]
    closed = [part for part in schema["$defs"].values() if "properties" in part]
    assert closed and all(part["additionalProperties"] is False for part in [schema, *closed])


def test_the_schema_has_the_options_of_every_method() -> None:
    choices = make_json_schema()["$defs"]["MethodChoice"]["anyOf"]
    by_name = {choice["properties"]["name"]["const"]: choice for choice in choices}
    assert by_name.keys() == set(methods.METHODS)
    assert by_name["fedmp"]["properties"]["ratio_max"]["maximum"] == 1
    assert by_name["fedmp"]["properties"]["ratio_max"]["description"]
    assert by_name["fedmp"]["required"] == ["name"]
    assert by_name["fedavg"]["required"] == []
    assert all(choice["additionalProperties"] is False for choice in choices)


def test_the_table_has_every_key_of_a_recipe() -> None:
    assert [row.name for row in list_keys(options=Options)] == list(
        flatten(load_recipe(None, flags={"method.name": "fedmp"}))
    )
    assert [row.name for row in list_keys() if row.name.startswith("method")] == ["method.name"]
    assert all(row.type and row.doc for row in list_keys(options=Options))
