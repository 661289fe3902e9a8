"""The command line from outside: its grammar, its exit codes, its one-line refusals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gebm.cluster.errors import FarmError, InputError
from gebm.launch.cli.main import ORDER, run
from gebm.launch.config import dump_recipe, load_recipe

DATA = ("mnist", "stacked_mnist", "tabular", "toy", "vectors", "folder", "cifar10", "index")
COMMANDS = [[name] for name in ORDER] + [["data", name] for name in DATA]


def gebm(*arguments: str, **options) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from gebm.launch.cli.main import main; main()", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **options)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_explains_itself(command, capsys):
    assert run([*command, "--help"]) == 0
    assert f"gebm {' '.join(command)}" in capsys.readouterr().out


def test_help_lists_the_commands_in_the_order_of_use(capsys):
    assert run(["--help"]) == 0
    shown = capsys.readouterr().out
    places = [shown.index(f"│ {name} ") for name in ORDER]
    assert places == sorted(places)


def test_help_waits_for_no_heavy_import():
    heavy = {"torch", "ray", "accelerate", "torchvision", "matplotlib", "pydantic", "numpy"}
    code = (
        "import sys; from gebm.launch.cli.main import run; code = run(['--help']);"
        f"print(sorted({heavy!r} & set(sys.modules)), file=sys.stderr); sys.exit(code)"
    )
    begun = time.monotonic()
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, result.stderr.strip()) == (0, "[]")
    # About 0.3 s on an idle machine; the bound leaves room for one that is busy with other tests.
    assert time.monotonic() - begun < 3


def test_the_version_is_that_of_the_package():
    result = gebm("--version")
    assert (result.returncode, result.stdout) == (0, "gebm 0.1.0\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "mnits", "--out", "run"], "no recipe 'mnits'; did you mean 'mnist'"),
        (
            ["train", "mnist", "--out", "run", "--set", "trainer.batch_sise=3"],
            "did you mean trainer.batch_size?",
        ),
        (["train", "cifar10_convnet", "--out", "run"], "recipe cifar10_convnet: data.train is not set"),
        (["train", "cifar10_convnet", "--out", "run", "--data", "nowhere"], "nowhere has no index.json"),
        (["train", "mnist", "--out", "run", "--set", "model.base_widths=[8]"], "model.base_widths"),
        (["demo", "--out", "run", "--set", "sampler.name=ulla"], "did you mean 'ula'?"),
        (["tune", "run"], "is not a run"),
        (["sample", "run", "--out", "x"], "is not a run"),
        (["report", "run"], "is not a run"),
        (["evaluate", "here", "--reference", "there"], "here has no index.json"),
        (["compare", "here", "there"], "here has no index.json"),
        (["compare", "here", "there", "--test", "mdm"], "--test: test: input should be 'mmd' or 'relative', not 'mdm'"),
        (["compare", "here", "there", "--bandwidth", "wide"], "--bandwidth: bandwidth: must be a positive number"),
        (["compare", "x.npy", "y.npy"], "no file"),
        (["compare", "x.npy", "y.npy", "--base", "b.npy"], "take --test relative"),
        (["compare", "x.npy", "y.npy", "--test", "relative"], "give --base"),
        (["compare", "x.npy", "y.npy", "--precision", "bf61"], "precision"),
        (["data", "index", "nowhere"], "holds no shard"),
        (["data", "folder", "nowhere", "out"], "is not a folder"),
        (["data", "folder", "nowhere", "out", "--split", "1,x"], "--split 1,x"),
        (["data", "cifar10", "nowhere", "out"], "holds no shard"),
        (["data", "toy", "torus", "out"], "no distribution 'torus'; there are two_modes"),
        (["data", "toy", "ring", "out", "--counts", "5,0,5"], "--counts 5,0,5: give three whole numbers"),
        (["data", "tabular", "boston", "out"], "no table 'boston'; there are breast_cancer"),
        (["data", "tabular", "iris", "out", "--split", "0.5,0.2,0.2"], "split 0.5,0.2,0.2: give three fractions"),
        (["data", "stacked_mnist", "out", "--counts", "many"], "--counts many"),
        (["data", "vectors", "nowhere.npy", "out"], "nowhere.npy: no such file"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_message_exit_code_2_and_nothing_written(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(arguments) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and message in errors[0]
    assert list(tmp_path.rglob("*")) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--sampler", "mla"], "--name: name: input should be"),
        (["--set", "sampler.thinn=2"], "--set sampler.thinn=2: unknown key thinn; did you mean thin?"),
        (["--set", "trainer.batch_size=2"], "--set trainer.batch_size=2: only keys of [sampler] count here"),
        (["--sampler", "kla", "--set", "sampler.target_acceptance=0.6"], "target_acceptance with name = 'kla'"),
        (["--format", "jpg"], "--format: format: input should be 'png' or 'npy', not 'jpg'"),
        (["--save", "latents", "--save", "energy"], "--save: save[1]: input should be 'latents' or 'energies'"),
    ],
)
def test_sampler_settings_that_make_no_sense_are_refused(options, message, tmp_path, capsys):
    (tmp_path / "config.toml").write_text(dump_recipe(load_recipe("mnist")))
    assert run(["sample", str(tmp_path), "--out", str(tmp_path / "out"), *options]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and message in errors[0]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("arguments", [["nonsense"], ["train"], ["train", "mnist", "--out", "x", "--wrokers", "2"]])
def test_wrong_usage_exits_with_2(arguments, capsys):
    assert run(arguments) == 2
    assert "Error" in capsys.readouterr().err


def raising(error: BaseException):
    def command(*_, **__):
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (InputError("shard x is truncated"), 2, "error: shard x is truncated\n"),
        (FarmError("1 of 4 work items failed"), 1, "error: 1 of 4 work items failed\n"),
        (KeyboardInterrupt(), 130, "interrupted: the same command goes on from where it stopped\n"),
        # What Ray makes of SIGTERM.
        (SystemExit(signal.SIGTERM), 143, "interrupted: the same command goes on from where it stopped\n"),
    ],
)
def test_each_kind_of_failure_has_its_exit_code_and_one_line(error, code, message, monkeypatch, capsys):
    monkeypatch.setattr("gebm.launch.config.load_recipe", raising(error))
    assert run(["train", "mnist", "--out", "unused"]) == code
    assert capsys.readouterr().err.strip() == message.strip()


def test_a_fault_of_our_own_is_not_dressed_up_as_bad_input(monkeypatch):
    monkeypatch.setattr("gebm.launch.config.load_recipe", raising(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        run(["train", "mnist", "--out", "unused"])


def test_ctrl_c_leaves_a_data_set_that_the_same_command_finishes(tmp_path):
    command = [sys.executable, "-c", "from gebm.launch.cli.main import main; main()", "data", "mnist", "out"]
    with subprocess.Popen(
        [*command, "--shard-size", "20"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        while not list(tmp_path.glob("out/train/*.tar")) and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.splitlines()[-1] == "interrupted: the same command goes on from where it stopped"
    assert not (Path(tmp_path) / "out/test/index.json").exists()
    again = gebm("data", "mnist", "out", "--shard-size", "20", cwd=tmp_path, env=os.environ)
    assert again.returncode == 0
    assert "3,500" in again.stdout and "1,000" in again.stdout
