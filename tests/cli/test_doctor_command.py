from __future__ import annotations

import json
from collections.abc import Callable
from importlib import metadata

import pytest

from fpcli.cli import doctor_command


def test_a_healthy_machine(fp: Callable) -> None:
    done = fp("doctor", "--json")
    envelope = json.loads(done.out)
    assert (done.status, envelope["status"], envelope["error"]) == (0, "ok", None)
    data = envelope["data"]
    assert {"versions", "devices", "extras", "disk_free_bytes"} <= data.keys()
    assert data["versions"]["torch"] == metadata.version("torch")
    assert data["devices"][0]["name"] == "cpu"
    assert data["devices"][0]["cores"] >= 1
    assert data["disk_free_bytes"] > 0
    assert data["data"] == {"digits": "ok"}
    text = fp("doctor")
    assert text.status == 0
    assert "--workers auto" in text.out


def test_something_is_missing(fp: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_command, "_NEEDED", ("typer", "no_such_package"))
    done = fp("doctor", "--json")
    envelope = json.loads(done.out)
    assert (done.status, envelope["status"]) == (5, "error")
    assert "no_such_package cannot be imported" in envelope["error"]["message"]
    assert envelope["error"]["code"] == "F501"
    assert envelope["data"]["versions"]["no_such_package"] is None


def test_needed_is_what_is_declared() -> None:
    declared = {
        line.split(">")[0].strip()
        for line in metadata.requires("fpcli") or ()
        if "extra ==" not in line
    }
    assert set(doctor_command._NEEDED) == declared
