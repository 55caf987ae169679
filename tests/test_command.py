"""The scripts from outside, as a learner runs them: files, text, determinism, bad input, signals."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from conftest import ALL_NAMES, CARTPOLE_NAMES, ROOT
from PIL import Image

NAMES = CARTPOLE_NAMES
FILES = ["history.csv", "learning_curve.png", "play.gif", "summary.json", "weights.pth"]
ENDLESS = ["--episodes", 100_000, "--learning-rate", 0, "--epsilon", 0]  # learns nothing: runs until it is stopped


def results(folder):
    """The summary, and the history as an array."""
    summary = json.loads((folder / "summary.json").read_text())
    return summary, np.genfromtxt(folder / "history.csv", delimiter=",", names=True, ndmin=1)


def wait_for_training(process):
    """Reads until the table's head, so that the first episode has begun; and then a while."""
    while not process.stdout.readline().startswith("episode"):
        assert process.poll() is None
    time.sleep(0.7)


@pytest.mark.parametrize("name", NAMES)
def test_a_run_says_and_writes_what_the_readme_promises(name, run, tmp_path):
    status, out, err = run(name, "--episodes", 25, "--seed", 5, "--learning-rate", 0)
    assert (status, err) == (0, "")
    folder = tmp_path / "runs" / name
    assert sorted(os.listdir(folder)) == FILES  # no temporary file is left
    summary, history = results(folder)
    assert summary["script"] == name and summary["config"]["seed"] == 5 and not summary["interrupted"]
    assert summary["episodes"] == len(history) <= 25 and summary["env_steps"] == history["env_steps"][-1]
    assert name == "a2c_cartpole" or summary["env_steps"] == history["steps"].sum()  # A2C's are of all environments
    assert summary["steps_per_second"] == pytest.approx(summary["env_steps"] / summary["train_seconds"])
    evaluation = summary["evaluation"]
    assert evaluation["episodes"] == 100 and evaluation["min"] <= evaluation["mean"] <= evaluation["max"] <= 200
    assert history["mean_of_10"][-1] == pytest.approx(history["steps"][-10:].mean())
    lines = out.splitlines()
    table = [line for line in lines if re.match(r" +\d+ ", line)]
    assert len({len(line) for line in [lines[0], *table]}) == 1 and len(table) >= 2  # aligned
    assert any(line.startswith("Not solved after 25 episodes") for line in lines)
    assert f"mean {evaluation['mean']:.1f}" in out
    with Image.open(folder / "play.gif") as gif:
        assert gif.size == (300, 200) and gif.n_frames >= 4
    with Image.open(folder / "learning_curve.png") as png:
        assert png.size == (800, 450)
    weights = torch.load(folder / "weights.pth", weights_only=True)
    assert all(tensor.isfinite().all() for tensor in weights.values())


def test_the_same_seed_gives_the_same_history_and_another_seed_another(run, tmp_path):
    for folder, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert run("per_cartpole", "--episodes", 20, "--seed", seed, "--output-dir", folder, "--no-media")[0] == 0
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
    (["--batch-size", "20000"], "batch_size"),
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
    assert err.count("\n") == 1 and err.startswith("per_cartpole.py: error: ") and named in err and "--" in err
    assert os.listdir(tmp_path) == ["file"] and (tmp_path / "file").read_text() == "kept"


WRONG_TYPES = [("seed", True), ("hidden_size", 2.5), ("gamma", "0.9"), ("learning_rate", float("inf"))]


@pytest.mark.parametrize("field, value", WRONG_TYPES)
def test_config_refuses_wrong_types(script, field, value):
    with pytest.raises(ValueError, match=field):
        script.Config(**{field: value})


def test_config_accepts_integers_for_floats(script):
    assert script.Config(gamma=1).gamma == 1


@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_and_saves(number, status, start, tmp_path):
    process = start("dqn_cartpole", *ENDLESS)
    wait_for_training(process)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (status, "")
    folder = tmp_path / "runs" / "dqn_cartpole"
    assert sorted(os.listdir(folder)) == FILES
    summary, history = results(folder)
    assert summary["interrupted"] and not summary["solved"]
    assert summary["episodes"] == len(history) > 1 and "Interrupted after" in out


def test_a_signal_in_the_first_episode_still_saves(script, monkeypatch, tmp_path):
    name = "make_vec" if script.SCRIPT == "a2c_cartpole" else "make"
    real = getattr(script.gym, name)

    def interrupted(*arguments, **options):
        env = real(*arguments, **options)
        step = env.step
        env.step = lambda action: (signal.raise_signal(signal.SIGINT), step(action))[1]
        monkeypatch.setattr(script.gym, name, real)
        return env

    monkeypatch.setattr(script.gym, name, interrupted)
    with pytest.raises(SystemExit) as end:
        script.main(["--output-dir", str(tmp_path)])
    assert end.value.code == 130 and sorted(os.listdir(tmp_path)) == FILES
    assert (tmp_path / "history.csv").read_text().splitlines() == [",".join(script.Row._fields)]
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["interrupted"] and summary["episodes"] == summary["env_steps"] == 0
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler  # as it was before


def whole(folder):
    """Reads every file of a run to its end."""
    summary, history = results(folder)
    assert len(history) == summary["episodes"] == 1
    assert len(torch.load(folder / "weights.pth", weights_only=True)) == 6
    for picture in ("learning_curve.png", "play.gif"):
        with Image.open(folder / picture) as image:
            image.seek(getattr(image, "n_frames", 1) - 1)
            image.load()


KILLED = """
import os, dqn_cartpole as script
save, saved = script.save, []
def save_until_killed(path, write):
    def half(file):
        write(file)
        file.truncate(file.tell() // 2)
        os.kill(os.getpid(), 9)
    saved.append(path)
    save(path, half if len(saved) == {number} else write)
script.save = save_until_killed
script.main(["--episodes", "1", "--seed", "1", "--output-dir", {folder!r}])
"""


def test_kill_9_never_leaves_a_broken_file(run, tmp_path):
    """Killed in the middle of each of its files in turn, a run leaves every one old and whole, or new and whole."""
    folder = tmp_path / "out"
    assert run("dqn_cartpole", "--episodes", 1, "--output-dir", folder)[0] == 0
    whole(folder)
    for number in range(1, len(FILES) + 1):
        code = KILLED.format(number=number, folder=str(folder))
        assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True).returncode == -9
        whole(folder)


def test_kill_9_in_the_middle_of_a_file_keeps_the_old_one(script, tmp_path):
    file = tmp_path / "file"
    script.save(file, lambda file: file.write(b"old"))
    code = f"""
import os, pathlib, {script.SCRIPT} as script
def half(file):
    file.write(b"half")
    file.flush()
    os.kill(os.getpid(), 9)
script.save(pathlib.Path({str(file)!r}), half)"""
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == -9
    assert file.read_bytes() == b"old"
    script.save(file, lambda file: file.write(b"new"))
    assert file.read_bytes() == b"new" and os.listdir(tmp_path) == ["file"]  # nothing piles up


def test_the_history_reads_as_csv(run, tmp_path):
    run("dueling_cartpole", "--episodes", 12, "--no-media", "--output-dir", "out")
    with open(tmp_path / "out" / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["episode"]) for row in rows] == list(range(1, 13))
    assert rows[0]["loss"] == "nan" and float(rows[-1]["loss"]) > 0


def test_scripts_import_only_what_the_requirements_hold():
    for name in ALL_NAMES:
        allowed = {"gymnasium", "matplotlib", "numpy", "torch", "PIL", "IPython"}
        allowed |= {"ale_py", "tqdm"} if name == "a2c_breakout" else set()
        imported = set(re.findall(r"^ *(?:import|from) (\w+)", (ROOT / f"{name}.py").read_text(), re.M))
        assert imported - set(sys.stdlib_module_names) <= allowed
