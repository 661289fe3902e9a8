"""The files of one checkpoint: copied at once, written behind training's back, shared, read without running code."""

import pickle
import threading
import uuid
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp

from gebm.cluster import storage
from gebm.trainer.checkpoints.folder import METADATA, PLAIN, begin_writing, read, share, written_files


def write(url: str, content: dict[str, Any]) -> None:
    future, plain = begin_writing(url, content, rank=0, world=1, group=None)
    future.result(timeout=60)
    storage.write_bytes_atomic(storage.join(url, PLAIN), plain.encode())


@pytest.mark.parametrize("where", ["local", "memory"])
def test_what_is_written_is_read_back_to_the_bit(where, tmp_path):
    url = str(tmp_path / "one") if where == "local" else f"memory://{uuid.uuid4().hex}/one"
    content = {"weights": torch.randn(100, 3), "step": torch.tensor(3), "lr": 0.1, "groups": [{"params": (0, 1)}]}
    write(url, content)
    back = read(url)
    assert torch.equal(back.pop("weights"), content.pop("weights")) and torch.equal(back.pop("step"), torch.tensor(3))
    content.pop("step")
    assert back == content
    assert {file.name for file in written_files(url, 0)} == {METADATA, PLAIN, "__0_0.distcp"}


def test_training_goes_on_while_the_file_is_written_and_does_not_change_what_is_in_it(tmp_path, monkeypatch):
    held, write_data = threading.Event(), dcp.FileSystemWriter.write_data

    def slow(self, *arguments):
        assert held.wait(60)
        return write_data(self, *arguments)

    monkeypatch.setattr(dcp.FileSystemWriter, "write_data", slow)
    weights = torch.zeros(1000)
    future, plain = begin_writing(str(tmp_path), {"weights": weights}, rank=0, world=1, group=None)
    weights += 1  # the next step of training
    assert not future.done()
    held.set()
    future.result(timeout=60)
    (tmp_path / PLAIN).write_text(plain)
    assert torch.equal(read(str(tmp_path))["weights"], torch.zeros(1000))


@pytest.mark.parametrize("world", [1, 2, 3, 7])
def test_workers_share_the_writing_about_equally_and_write_each_tensor_once(world):
    sizes = [100, 90, 80, 30, 30, 20, 10, 5, 5, 1]
    tensors = {f"tensor-{number}": torch.zeros(size) for number, size in enumerate(sizes)}
    shares = [share(tensors, rank, world) for rank in range(world)]
    assert sorted(name for each in shares for name in each) == sorted(tensors)
    loads = [sum(tensor.nbytes for tensor in each.values()) for each in shares]
    assert max(loads) <= sum(loads) / world + tensors["tensor-0"].nbytes


class Harm:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_checkpoint_that_would_run_code_is_refused_and_has_not_run_it(tmp_path):
    write(str(tmp_path), {"weights": torch.ones(3)})
    (tmp_path / METADATA).write_bytes(pickle.dumps(Harm(tmp_path / "harm")))
    with pytest.raises(pickle.UnpicklingError, match=r"\.metadata asks for .*, which no checkpoint needs"):
        read(str(tmp_path))
    assert not (tmp_path / "harm").exists()
    # The way round: a name with a dot, through a module that the description may come from.
    (tmp_path / METADATA).write_bytes(b"\x80\x04\x8c\x25torch.distributed.checkpoint.metadata\x8c\x09os.system\x93.")
    with pytest.raises(pickle.UnpicklingError, match=r"asks for .*os\.system"):
        read(str(tmp_path))
