"""Work items and workers of the farm's tests."""

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gebm.cluster.farm import WorkItem, run_farm

SETTINGS = {"sampler": {"name": "ula", "steps": 3}, "count": 60}


def work_items(output: Path | str, count: int = 6, **description: Any) -> list[WorkItem]:
    return [WorkItem(f"item-{n}", 100 + n, {"output": str(output), **description}) for n in range(count)]


def file_maker(log: Path, seconds: float = 0.05) -> Callable[[], Any]:
    """Return a `make_worker` whose worker first leaves half a file, and logs what it did at `log`."""

    def make() -> Any:
        import hashlib
        import os
        import random
        import time
        from pathlib import Path

        from gebm.cluster import storage

        def work(item: Any, attempt: str) -> dict[str, Any]:
            data = random.Random(item.seed).randbytes(1000)
            folder = Path(item.description["output"])
            folder.mkdir(parents=True, exist_ok=True)
            half = folder / f"{item.id}-{attempt}.half"
            half.write_bytes(data[:500])
            (log / f"{item.id}.{os.getpid()}.{attempt}").touch()
            time.sleep(seconds)
            name = f"{item.id}-{attempt}.bin"
            storage.write_bytes_atomic(str(folder / name), data)
            half.unlink()
            digest = hashlib.sha256(data).hexdigest()
            return {"name": name, "count": 10, "bytes": len(data), "sha256": digest}

        return work

    return make


def no_worker() -> Any:
    raise AssertionError("no actor may start")


def done_items(log: Path) -> list[str]:
    return sorted(path.name.split(".")[0] for path in log.iterdir())


def contents(output: Path) -> dict[str, str]:
    """Return {name without its attempt: digest} of all that stands in an output directory."""
    return {
        re.sub(r"try[0-9a-f]{10}", "try", path.name): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in output.iterdir()
        if path.name != "manifest.json"
    }


def undisturbed(folder: Path) -> dict[str, str]:
    """Return the contents that one actor makes in peace."""
    (folder / "peace-log").mkdir()
    output = folder / "peace"
    maker = file_maker(folder / "peace-log", 0)
    run_farm(work_items(output), maker, str(output), settings=SETTINGS, actors=1)
    return contents(output)
