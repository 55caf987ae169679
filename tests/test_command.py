"""The scripts from outside, as a learner runs them: files, text, bad input, faults, Ctrl-C."""

import json
import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import ALL_NAMES, CARTPOLE_NAMES, ROOT
from PIL import Image

NAMES = CARTPOLE_NAMES
FILES = ["history.csv", "learning_curve.png", "play.gif", "summary.json", "weights.pth"]
ENDLESS = ["--episodes", 100_000, "--learning-rate", 0]  # learns nothing: runs until stopped


def results(folder):
    """The summary, and the history as an array."""
    summary = json.loads((folder / "summary.json").read_text())
    return summary, np.genfromtxt(folder / "history.csv", delimiter=",", names=True, ndmin=1)


def few(name):
    """Flags for a run that ends soon and learns nothing."""
    limit = ["--steps", 4000] if name == "a2c_cartpole" else ["--episodes", 25]
    return [*limit, "--learning-rate", 0]


@pytest.mark.parametrize("name", NAMES)
def test_a_run_says_and_writes_what_the_readme_promises(name, run, tmp_path):
    status, out, err = run(name, *few(name), "--seed", 5)
    assert (status, err) == (0, "")
    folder = tmp_path / "runs" / name
    assert sorted(os.listdir(folder)) == FILES  # no temporary file is left
    summary, history = results(folder)
    assert summary["script"] == name and summary["config"]["seed"] == 5
    assert not summary["interrupted"] and not summary["solved"]
    assert summary["env_steps"] == history["env_steps"][-1]
    if name != "a2c_cartpole":
        assert summary["episodes"] == len(history) == 25
        assert summary["env_steps"] == history["steps"].sum()
        assert history["mean_of_10"][-1] == pytest.approx(history["steps"][-10:].mean())
    speed = summary["env_steps"] / summary["train_seconds"]
    assert summary["steps_per_second"] == pytest.approx(speed)
    evaluation = summary["evaluation"]
    assert evaluation["episodes"] == 100
    assert evaluation["min"] <= evaluation["mean"] <= evaluation["max"] <= 200
    lines = out.splitlines()
    table = [line for line in lines if re.match(r" +\d+ ", line)]
    assert len({len(line) for line in [lines[0], *table]}) == 1 and table  # aligned
    assert any(line.startswith("Not solved after ") for line in lines)
    assert f"mean {evaluation['mean']:.1f}" in out
    with Image.open(folder / "play.gif") as gif:
        assert gif.size == (300, 200) and gif.n_frames >= 4
    with Image.open(folder / "learning_curve.png") as png:
        assert png.size == (800, 450)
    weights = torch.load(folder / "weights.pth", weights_only=True)
    assert all(tensor.isfinite().all() for tensor in weights.values())


def test_the_same_seed_gives_the_same_history_and_another_seed_another(run, tmp_path):
    for folder, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert (
            run(
                "per_cartpole",
                "--episodes",
                20,
                "--seed",
                seed,
                "--output-dir",
                folder,
                "--no-media",
            )[0]
            == 0
        )
    history = {f: (tmp_path / f / "history.csv").read_bytes() for f in "abc"}
    assert history["a"] == history["b"] != history["c"]
    a, b = (torch.load(tmp_path / f / "weights.pth", weights_only=True) for f in "ab")
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_no_media_writes_neither_picture(run, tmp_path):
    assert run("dqn_cartpole", "--episodes", 2, "--no-media", "--output-dir", "out")[0] == 0
    assert sorted(os.listdir(tmp_path / "out")) == ["history.csv", "summary.json", "weights.pth"]


def test_every_field_is_a_flag(script, run):
    status, out, err = run(script.SCRIPT, "--help")
    assert (status, err) == (0, "")
    for name in script.Config.__dataclass_fields__:
        assert f"--{name.replace('_', '-')} " in out
    assert max(map(len, out.splitlines())) <= 80


BAD = [
    (["--batch-size", "0"], "batch_size"),
    (["--gamma", "1.5"], "gamma"),
    (["--gamma", "nan"], "gamma"),
    (["--learning-rate", "-1"], "learning_rate"),
    (["--learning-rate", "fast"], "'fast'"),
    (["--episodes", "1.5"], "'1.5'"),
    (["--seed", "-1"], "seed"),
    (["--seed", str(2**32)], "seed"),
    (["--max-steps", "0"], "max_steps"),
    (["--hidden-size", "1000000000"], "hidden_size"),
    (["--no-such-flag"], "--no-such-flag"),
    (["--epis", "3"], "--epis"),
    (["stray"], "stray"),
    (["--output-dir", "file"], "file"),
    (["--output-dir", "file/below"], "file/below"),
    (["--output-dir", "/proc/nothing"], "/proc/nothing"),
    (["--output-dir", "/proc"], "/proc"),
]


@pytest.mark.parametrize("arguments, named", BAD)
def test_bad_input_is_one_line_and_status_2(arguments, named, run, tmp_path):
    (tmp_path / "file").write_text("kept")
    status, out, err = run("per_cartpole", *arguments)
    assert status == 2 and out == ""
    assert err.count("\n") == 1 and err.startswith("per_cartpole.py: error: ") and named in err
    assert os.listdir(tmp_path) == ["file"] and (tmp_path / "file").read_text() == "kept"


WRONG_TYPES = [("seed", "3"), ("hidden_size", 2.5), ("gamma", "0.9"), ("seed", True)]
WRONG_TYPES += [("learning_rate", float("inf")), ("gamma", np.float32(1.5))]


@pytest.mark.parametrize("field, value", WRONG_TYPES)
def test_config_refuses_nonsense(script, field, value):
    with pytest.raises(ValueError, match=field):
        script.Config(**{field: value})


def test_config_accepts_numbers_of_any_kind(script):
    config = script.Config(gamma=1, seed=np.int64(3), learning_rate=np.float32(0.5))
    assert [type(x) for x in (config.gamma, config.seed, config.learning_rate)] == [
        float,
        int,
        float,
    ]
    assert (config.gamma, config.seed, config.learning_rate) == (1, 3, 0.5)


@pytest.mark.parametrize(
    "module, version, needed",
    [("torch", "2.3.1+cpu", "2.4"), ("np", "1.25.9", "1.26"), ("gym", "0.29.1", "1.0")],
)
def test_an_old_package_is_one_line_and_status_2(
    script, module, version, needed, monkeypatch, capsys, tmp_path
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(getattr(script, module), "__version__", version)
    with pytest.raises(SystemExit) as end:
        script.main([])
    out, err = capsys.readouterr()
    assert end.value.code == 2 and err.count("\n") == 1 and needed in err and out == ""
    assert os.listdir() == []


def test_the_oldest_torch_is_new_enough(script, monkeypatch, tmp_path):
    monkeypatch.setattr(script.torch, "__version__", "2.4.0+cu121")
    assert script.parse(["--output-dir", str(tmp_path)]).output_dir == tmp_path


def test_ctrl_c_stops_and_saves(start, tmp_path):
    process = start("dqn_cartpole", *ENDLESS)
    assert process.stdout.readline().startswith("episode")
    assert process.stdout.readline().split()[0] == "10"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "")
    folder = tmp_path / "runs" / "dqn_cartpole"
    assert sorted(os.listdir(folder)) == FILES
    summary, history = results(folder)
    assert summary["interrupted"] and not summary["solved"]
    assert summary["episodes"] == len(history) >= 10 and "Interrupted after" in out


def test_ctrl_c_in_the_first_episode_still_saves(script, monkeypatch, tmp_path):
    name = "make_vec" if script.SCRIPT == "a2c_cartpole" else "make"
    real = getattr(script.gym, name)

    def interrupted(*arguments, **options):
        env = real(*arguments, **options)
        env.step = lambda action: signal.raise_signal(signal.SIGINT)
        monkeypatch.setattr(script.gym, name, real)
        return env

    monkeypatch.setattr(script.gym, name, interrupted)
    with pytest.raises(SystemExit) as end:
        script.main(["--output-dir", str(tmp_path)])
    assert end.value.code == 130  # and no picture of nothing
    assert sorted(os.listdir(tmp_path)) == ["history.csv", "summary.json", "weights.pth"]
    assert (tmp_path / "history.csv").read_text().count("\n") == 1  # only the head
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["interrupted"] and summary["episodes"] == summary["env_steps"] == 0


# Faults that users met


def test_a_notebook_shows_the_pictures_that_were_written(script, monkeypatch, tmp_path):
    shown = []
    monkeypatch.setattr(script, "NOTEBOOK", True)
    monkeypatch.setattr("IPython.display.display", lambda *images: shown.extend(images))
    arguments = [*map(str, few(script.SCRIPT)), "--output-dir", str(tmp_path)]
    script.main(arguments)
    assert [image.format for image in shown] == ["png", "gif"]
    (tmp_path / "play.gif").unlink()
    (tmp_path / "play.gif").mkdir()
    script.main(arguments)
    assert [image.format for image in shown] == ["png", "gif", "png"]


def test_a_file_that_cannot_be_written_costs_no_other(script, monkeypatch, capsys, tmp_path):
    """A folder in its place, then a full disk for the network's weights."""
    (tmp_path / "history.csv").mkdir()
    arguments = [*map(str, few(script.SCRIPT)), "--output-dir", str(tmp_path)]
    with pytest.raises(SystemExit) as end:
        script.main(arguments)
    err = capsys.readouterr().err
    assert end.value.code == 1 and err.count("\n") == 1 and "history.csv" in err
    assert sorted(os.listdir(tmp_path)) == FILES
    (tmp_path / "history.csv").rmdir()
    whole = (tmp_path / "weights.pth").read_bytes()

    def full(weights, path):
        path.write_bytes(b"half")
        raise RuntimeError("[enforce fail] unexpected pos")

    monkeypatch.setattr(script.torch, "save", full)
    with pytest.raises(SystemExit) as end:
        script.main([*arguments, "--seed", "1"])
    err = capsys.readouterr().err
    assert end.value.code == 1 and err.count("\n") == 1 and "weights.pth" in err
    assert sorted(os.listdir(tmp_path)) == FILES
    assert (tmp_path / "weights.pth").read_bytes() == whole


def test_runs_that_share_a_folder_all_end_well(start, tmp_path):
    runs = [start("ddqn_cartpole", *few("ddqn_cartpole"), "--seed", seed) for seed in range(3)]
    for process in runs:
        assert (process.communicate(timeout=120)[1], process.returncode) == ("", 0)
    folder = tmp_path / "runs" / "ddqn_cartpole"
    assert sorted(os.listdir(folder)) == FILES and results(folder)[0]["episodes"] == 25
    assert len(torch.load(folder / "weights.pth", weights_only=True)) == 6


SHELL = [
    "MPLBACKEND=module://not_there.backend {run}",
    "MPLBACKEND=nonsense {run}",
    "SDL_VIDEODRIVER=x11 {run}",
    "PYTHONIOENCODING=ascii {run} --output-dir 棒",
    "{run} 2>&-",
    "{run} >&-",
    "{run} | head -n 1",
    "HOME=$PWD {run} --output-dir '~/out'",
    "{run} --output-dir '~nosuchuser/out'",
    "{run} >/dev/full",
]


@pytest.mark.parametrize("line", SHELL)
def test_whatever_a_process_inherits(line, tmp_path):
    run = f"{sys.executable} -u -W error {ROOT / 'dqn_cartpole.py'} --episodes 12"
    done = subprocess.run(line.format(run=run), shell=True, cwd=tmp_path, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert "~" not in os.listdir(tmp_path)
    (folder,) = {path.parent for path in tmp_path.rglob("summary.json")}
    assert sorted(os.listdir(folder)) == FILES


def test_an_import_and_a_thread_leave_the_world_alone(script, tmp_path):
    code = f"""
import os, gymnasium; before = dict(os.environ)  # gymnasium sets one of its own
import threading, {script.SCRIPT} as script, torch
assert dict(os.environ) == before
threads = torch.get_num_threads()
arguments = {[*map(str, few(script.SCRIPT))]!r} + ["--output-dir", {str(tmp_path)!r}]
results = []
thread = threading.Thread(target=lambda: results.append(script.main(arguments)))
thread.start(); thread.join()
assert len(repr(results)) < 200 and "Agent" in repr(results)
ours = [(name, os.environ.get(name)) for name in ("MPLBACKEND", "SDL_VIDEODRIVER")]
assert ours == [(name, before.get(name)) for name, _ in ours]
assert torch.get_num_threads() == threads"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


KILLED = """
import os, pathlib, dqn_cartpole as script
def half(path):
    path.write_bytes(b"half")
    os.kill(os.getpid(), 9)
script.save(pathlib.Path({!r}), half)"""


def test_kill_9_in_the_middle_of_a_file_keeps_the_old_one(tmp_path):
    file = tmp_path / "file"
    file.write_text("old")
    code = KILLED.format(str(file))
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == -9
    assert file.read_text() == "old"


def test_scripts_import_only_what_the_requirements_hold():
    for name in ALL_NAMES:
        allowed = {"gymnasium", "matplotlib", "numpy", "torch", "PIL", "IPython"}
        allowed |= {"ale_py", "tqdm"} if name == "a2c_breakout" else set()
        source = (ROOT / f"{name}.py").read_text()
        imported = set(re.findall(r"^ *(?:import|from) (\w+)", source, re.M))
        assert imported - set(sys.stdlib_module_names) <= allowed
