"""Functions of the user's that are told of every metrics record, by import path: how other trackers are fed."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any

from gebm.cluster.errors import InputError

Callback = Callable[[dict[str, Any]], Any]
Tell = Callable[[dict[str, Any]], None]


def import_callback(path: str) -> Callback:
    """The function at `path`, `package.module:function`. Raises `InputError` when there is none."""
    field = f"trainer.callbacks: {path}"
    module_name, colon, name = path.partition(":")
    if not (module_name and colon and name):
        raise InputError(f'{field}: write "package.module:function"')
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # of the user's own code: anything
        raise InputError(
            f"{field}: cannot be imported ({type(error).__name__}: {error}); is it on PYTHONPATH?"
        ) from error
    function = getattr(module, name, None)
    if not callable(function):
        what = "is not a function" if hasattr(module, name) else "does not exist"
        raise InputError(f"{field}: {name} {what} in {module_name}")
    return function


def telling(callbacks: Sequence[tuple[str, Callback]], tell: Tell) -> Tell:
    """`tell`, and each callback with every record that has a round.

    A callback that raises is named once, as an event, and is not called again: it does not end the training.
    """
    working = dict(callbacks)

    def tell_all(record: dict[str, Any]) -> None:
        tell(record)
        if "round" not in record:
            return
        for path, callback in list(working.items()):
            try:
                callback(dict(record))
            except Exception as error:  # of the user's own code: anything
                del working[path]
                tell({"event": f"callback {path} failed and is left out from now on: {type(error).__name__}: {error}"})

    return tell_all
