"""What a recipe asks for that can never happen in its number of rounds."""

from __future__ import annotations

from fpcli import plugins
from fpcli.engine.method import Method
from fpcli.settings.recipes import Recipe

CODE = "F302"


def find_idle(recipe: Recipe) -> list[str]:
    """Return one line per setting without effect: code, what and why, and the remedy.

    That is no error, since more rounds may follow later (`fp train --resume RUN --rounds N`).
    """
    rounds = recipe.rounds
    method: Method = plugins.lookup("methods", recipe.method.name)()
    texts = method.idle(method.Options(**recipe.method.options), rounds)
    if late := [at for at in recipe.local.lr_drop_at if at > rounds]:
        texts.append(
            f"`local.lr_drop_at` has {', '.join(map(str, late))}, but the run ends after round "
            f"{rounds}; name earlier rounds, or set rounds to {max(late)} or more"
        )
    return [f"{CODE}: {text}" for text in texts]
