"""Checkpoints of a run: data files first, then the manifest that names them.

`checkpoints/manifest.json` is the commit point: a checkpoint that it does not name does not exist. It says which
run the checkpoints belong to, so that another run's are refused instead of silently continued.
"""

from __future__ import annotations

import io
import pickle

import torch
from pydantic import ValidationError

from gebm.cluster import storage
from gebm.cluster.errors import InputError
from gebm.cluster.settings import StrictModel
from gebm.trainer.state import TrainingState

FORMAT_VERSION = 2
MANIFEST = "manifest.json"


class CheckpointRecord(StrictModel):
    """One checkpoint: the number of rounds done and the file that holds them."""

    round: int
    name: str
    bytes: int
    sha256: str


class CheckpointManifest(StrictModel):
    """What `checkpoints/manifest.json` holds, oldest checkpoint first."""

    format_version: int = FORMAT_VERSION
    run_digest: str
    finished: bool = False  # the model was exported
    checkpoints: tuple[CheckpointRecord, ...] = ()


def folder(run: str) -> str:
    return storage.join(run, "checkpoints")


def read_manifest(run: str, run_digest: str) -> CheckpointManifest:
    """The manifest of `run`, an empty one when nothing was saved.

    Raises `InputError` when the checkpoints are another run's or cannot be understood.
    """
    url = storage.join(folder(run), MANIFEST)
    if not storage.exists(url):
        return CheckpointManifest(run_digest=run_digest)
    try:
        manifest = CheckpointManifest.model_validate_json(storage.read_bytes(url))
    except ValidationError as error:
        raise InputError(f"{url}: not a checkpoint manifest; give another --out or remove the folder") from error
    if manifest.format_version != FORMAT_VERSION:
        raise InputError(f"{url}: format_version {manifest.format_version}, this gebm reads {FORMAT_VERSION}")
    if manifest.run_digest != run_digest:
        raise InputError(
            f"{url}: run_digest: these checkpoints belong to a run with another model, trainer, data or seed; "
            "give another --out, or the settings that it was started with"
        )
    return manifest


def write_manifest(run: str, manifest: CheckpointManifest) -> None:
    storage.write_bytes_atomic(storage.join(folder(run), MANIFEST), manifest.model_dump_json(indent=1).encode())


def save_checkpoint(run: str, manifest: CheckpointManifest, state: TrainingState, keep: int) -> CheckpointManifest:
    """Write `state`, commit it, remove all but the newest `keep`; return the new manifest."""
    buffer = io.BytesIO()
    torch.save(state.as_dict(), buffer)
    # A roll-back leaves another checkpoint of the same round: under a name of its own, the one before stays whole.
    again = f"-rollback-{len(state.rollbacks)}" if state.rollbacks else ""
    name = f"round-{state.round:08d}{again}.pt"
    url = storage.join(folder(run), name)
    storage.make_directory(folder(run))
    storage.write_bytes_atomic(url, buffer.getvalue())
    record = CheckpointRecord(round=state.round, name=name, bytes=buffer.getbuffer().nbytes, sha256=storage.sha256(url))
    earlier = tuple(old for old in manifest.checkpoints if old.name != name)
    kept = (*earlier, record)[-keep:]
    manifest = manifest.model_copy(update={"checkpoints": kept})
    write_manifest(run, manifest)
    for old in earlier:
        if old not in kept:
            storage.remove(storage.join(folder(run), old.name))
    return manifest


def load_newest(run: str, manifest: CheckpointManifest, state: TrainingState) -> bool:
    """Bring `state` to the newest committed checkpoint; False when there is none.

    A damaged file (its digest is checked) falls back to the one before. Raises `InputError` when all are damaged,
    or when one belongs to another architecture.
    """
    damaged = []
    for record in reversed(manifest.checkpoints):
        url = storage.join(folder(run), record.name)
        if not storage.exists(url) or storage.sha256(url) != record.sha256:
            damaged.append(url)
            continue
        try:
            content = torch.load(io.BytesIO(storage.read_bytes(url)), map_location="cpu", weights_only=True)
            state.load_dict(content)
        except (KeyError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(
                f"{url}: a checkpoint of another architecture ({reason}); "
                "give another --out or the recipe's own [model]"
            ) from error
        return True
    if damaged:
        raise InputError(
            f"{', '.join(damaged)}: missing or damaged, and no older checkpoint is left; "
            f"remove {folder(run)} to start again"
        )
    return False
