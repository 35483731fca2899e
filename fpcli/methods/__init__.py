"""Federated methods, one per file; a reader of the paper finds all of it there."""

import re
from pathlib import Path

_CLASS = re.compile(r'^class (\w+)\(\w+\):\n    """[^"]*"""\n\n    source\b', re.MULTILINE)
"""A method is the class that names its source, below its docstring."""


def _find_methods() -> dict[str, str]:
    """Return the method of every file of this folder, whose name it has, read without importing."""
    references = {}
    for path in sorted(Path(__file__).parent.glob("[a-z]*.py")):
        (name,) = _CLASS.findall(path.read_text("utf-8"))
        references[path.stem.replace("_", "-")] = f"{__name__}.{path.stem}:{name}"
    return references


METHODS = _find_methods()
"""Name -> ``module:class``, read by ``plugins.lookup``."""
