"""Callbacks by import path are told of every record, and cannot end the training."""

from typing import Any

import pytest

from gebm.cluster.errors import InputError
from gebm.trainer.callbacks import import_callback, telling

SEEN: list[dict[str, Any]] = []
HERE = "tests.trainer.test_callbacks"


def remember(record: dict[str, Any]) -> None:
    SEEN.append(record)


def spoil(record: dict[str, Any]) -> None:
    record.clear()


def fail(record: dict[str, Any]) -> None:
    raise OSError("no route to the tracker")


def test_a_callback_is_told_of_every_record_of_metrics_and_of_nothing_else():
    SEEN.clear()
    told: list[dict[str, Any]] = []
    tell = telling([(path, import_callback(f"{HERE}:{path}")) for path in ("spoil", "remember")], told.append)
    records = [{"event": "worker 1 of 1"}, {"round": 2, "fid": 3.0}, {"round": 0, "event": "rolled back"}]
    for record in records:
        tell(record)
    assert told == records == [{"event": "worker 1 of 1"}, *SEEN]


def test_a_callback_that_raises_is_named_once_and_left_out():
    told: list[dict[str, Any]] = []
    tell = telling([("module:fail", fail)], told.append)
    for number in range(3):
        tell({"round": number})
    events = [record["event"] for record in told if "event" in record]
    assert events == ["callback module:fail failed and is left out from now on: OSError: no route to the tracker"]
    assert [record["round"] for record in told if "round" in record] == [0, 1, 2]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("remember", 'trainer.callbacks: remember: write "package.module:function"'),
        ("no_such_module:function", "no_such_module:function: cannot be imported .*is it on PYTHONPATH"),
        (f"{HERE}:forget", f"{HERE}:forget: forget does not exist in {HERE}"),
        (f"{HERE}:SEEN", f"{HERE}:SEEN: SEEN is not a function in {HERE}"),
    ],
)
def test_a_path_that_leads_nowhere_is_refused(path, message):
    with pytest.raises(InputError, match=message):
        import_callback(path)
