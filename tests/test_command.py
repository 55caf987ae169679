"""The scripts from outside, as a learner runs them: files, text, bad input, faults, Ctrl-C."""

import __future__

import csv
import json
import os
import re
import signal
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ALL_NAMES, CARTPOLE_NAMES, ROOT, scripts
from PIL import Image

TWO = scripts("dqn_cartpole", "a2c_cartpole")  # for what is the same in all five
PICTURES = ["learning_curve.png", "play.gif"]
FILES = sorted([*PICTURES, "history.csv", "summary.json", "weights.pth"])
TRAINING = ["history.csv", "weights.pth"]


def few(name):
    """Flags for a run that ends soon and learns nothing."""
    limit = ["--steps", "4000"] if name == "a2c_cartpole" else ["--episodes", "12"]
    return [*limit, "--learning-rate", "0"]


def read_history(folder):
    """The lines of history.csv, as dictionaries of texts."""
    with open(folder / "history.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
@TWO
def test_a_run_says_and_writes_what_the_readme_promises(script, run, tmp_path):
    name = script.NAME
    flags = [*few(name), "--seed", "5"]
    status, out, err = run(name, *flags)
    assert (status, err) == (0, "")
    folder = tmp_path / "runs" / name
    assert sorted(os.listdir(folder)) == FILES
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    history = read_history(folder)
    last = history[-1]
    assert summary["script"] == name and not summary["solved"]
    assert summary["config"] == vars(script.parse([*flags, "--output-dir", str(folder)])[0])
    assert summary["env_steps"] == int(last["env_steps"])
    if name == "a2c_cartpole":
        assert summary["env_steps"] >= 4000 and summary["episodes"] == int(last["episodes"])
        assert last["passed"] == "False" and int(last["update"]) == len(history)
    else:
        assert summary["episodes"] == len(history) == 12 and last["full_tests"] == "0"
        assert summary["env_steps"] == sum(int(row["steps"]) for row in history)
        assert history[0]["test"] == "False"
    assert 0 < summary["train_seconds"] < 60
    low, high = summary["greedy_min"], summary["greedy_max"]
    assert 8 <= low <= summary["greedy_mean"] <= high <= 200
    assert f"mean {summary['greedy_mean']:.1f}, {low} to {high}." in out
    lines = out.splitlines()
    table = [line for line in lines if re.match(r" +\d+ ", line)]
    assert table and len({len(line) for line in [lines[0], *table]}) == 1  # aligned
    assert any(line.startswith("Not solved after ") for line in lines)
    assert lines[-1] == f"Results are in {folder.relative_to(tmp_path)}."
    with Image.open(folder / "play.gif") as gif:
        assert gif.size == (450, 150) and gif.n_frames >= 4
        colours = np.asarray(gif.convert("RGB")).reshape(-1, 3)
        assert len(np.unique(colours, axis=0)) >= 4  # background, track, cart, pole
    with Image.open(folder / "learning_curve.png") as png:
        assert png.size == (1200, 600)
    weights = torch.load(folder / "weights.pth", weights_only=True)
    assert all(tensor.isfinite().all() for tensor in weights.values())
    # The same seed, here in another process, gives the same history; another seed another
    again = tmp_path / "again"
    script.main([*flags, "--no-media", "--output-dir", str(again)])
    assert sorted(os.listdir(again)) == ["history.csv", "summary.json", "weights.pth"]
    assert read_history(again) == history
    same = torch.load(again / "weights.pth", weights_only=True)
    assert all(torch.equal(weights[key], same[key]) for key in weights)
    script.main([*few(name), "--seed", "6", "--no-media", "--output-dir", str(again)])
    assert read_history(again) != history


@TWO
def test_no_media_leaves_no_pictures_of_an_earlier_run(script, tmp_path):
    (tmp_path / "mine.png").write_text("kept")
    for picture in PICTURES:
        (tmp_path / picture).write_text("of an earlier run")
    script.main([*few(script.NAME), "--no-media", "--output-dir", str(tmp_path)])
    expected = ["history.csv", "mine.png", "summary.json", "weights.pth"]
    assert sorted(os.listdir(tmp_path)) == expected


@scripts(*CARTPOLE_NAMES)
def test_help_says_what_it_is_and_every_field_is_a_flag(script, capsys):
    with pytest.raises(SystemExit) as end:
        script.main(["--help"])
    out, err = capsys.readouterr()
    assert end.value.code == 0 and err == ""
    text = " ".join(out.split())
    assert text.startswith(f"{script.TITLE}. Usage: python {script.NAME}.py [--seed 3]")
    for name, field in script.Config.__dataclass_fields__.items():
        flag = f"--{name.replace('_', '-')} X"
        reason = f"{field.metadata['reason']} ({field.default})"
        assert f"{flag} {' '.join(reason.split())}" in text
    assert "--output-dir DIR" in text and "--no-media" in text
    assert max(map(len, out.splitlines())) <= 80


@scripts(*CARTPOLE_NAMES)
def test_every_flag_sets_its_field(script, tmp_path):
    """Each to a value that is no other's."""
    values = {}
    for i, (name, field) in enumerate(script.Config.__dataclass_fields__.items(), 2):
        values[name] = i if field.type is int else i / 100
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in values.items()]
    config, options = script.parse([*flags, "--no-media", "--output-dir", str(tmp_path / "a/b")])
    assert vars(config) == values
    assert options.no_media and options.output_dir == tmp_path / "a/b"
    assert (tmp_path / "a/b").is_dir()


BAD = [
    (["--batch-size", "0"], "batch_size must be a whole number from 1 to 1000000000, not 0"),
    (["--gamma", "1.5"], "gamma must be from 0 to 1, not 1.5"),
    (["--gamma", "nan"], "gamma"),
    (["--memory-size", "100"], "memory_size must be at least batch_size"),
    (["--learning-rate", "-1"], "learning_rate"),
    (["--learning-rate", "inf"], "learning_rate"),
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
    (["--output-dir", "file/below"], "below"),
]


@pytest.mark.parametrize("arguments, named", BAD)
@scripts("per_cartpole")
def test_bad_input_is_one_line_and_status_2(
    script, arguments, named, capsys, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("kept")
    with pytest.raises(SystemExit) as end:
        script.main(arguments)
    out, err = capsys.readouterr()
    assert end.value.code == 2 and out == ""
    assert err.count("\n") == 1 and err.startswith("per_cartpole.py: error: ") and named in err
    assert (
        os.listdir(tmp_path) == ["file"]
        and (tmp_path / "file").read_text(encoding="utf-8") == "kept"
    )


@pytest.mark.slow
def test_bad_input_to_a_process(run, tmp_path):
    line = "a2c_cartpole.py: error: num_envs must be a whole number from 1 to 10000, not 0\n"
    assert run("a2c_cartpole", "--num-envs", 0) == (2, "", line)
    assert os.listdir(tmp_path) == []


WRONG_TYPES = [("seed", "3"), ("hidden_size", 2.5), ("gamma", "0.9"), ("gamma", None)]
WRONG_TYPES += [("learning_rate", float("inf")), ("gamma", np.float32(1.5)), ("seed", np.int64(-1))]


@pytest.mark.parametrize("field, value", WRONG_TYPES)
@TWO
def test_config_refuses_nonsense(script, field, value):
    with pytest.raises(ValueError, match=f"^{field} must be .*from 0|^{field} must be .*from 1"):
        script.Config(**{field: value})


@TWO
def test_config_accepts_numbers_of_any_kind(script):
    config = script.Config(gamma=1, seed=np.int64(3), learning_rate=np.float32(0.5))
    assert (config.gamma, config.seed, config.learning_rate) == (1, 3, 0.5)
    assert [type(config.gamma), type(config.seed)] == [float, int]
    assert type(config.learning_rate) is float


@scripts(*ALL_NAMES)
def test_a_notebook_may_keep_annotations_as_text(script, monkeypatch, capsys):
    """IPython keeps `from __future__ import annotations` of an earlier cell for all later ones."""
    source = Path(script.__file__).read_text(encoding="utf-8")
    code = compile(source, script.NAME, "exec", __future__.annotations.compiler_flag)
    module = types.ModuleType(script.NAME)
    monkeypatch.setitem(sys.modules, script.NAME, module)  # where dataclass looks for it
    exec(code, vars(module))
    with pytest.raises(SystemExit) as end:
        module.main(["--seed", "1", "--gamma", "2"])
    assert end.value.code == 2 and "gamma must be from 0 to 1, not 2.0" in capsys.readouterr().err


# Ctrl-C, and what else goes wrong after training


@scripts(*ALL_NAMES)
def test_an_old_picture_that_a_viewer_holds_costs_no_training(script, monkeypatch, tmp_path):
    """On Windows a file that is open can't be removed."""

    def held(*_, **__):
        raise PermissionError

    if script.NAME == "a2c_breakout":
        agent, history = script.Agent(script.Config()), script.Progress()
    else:
        agent, history = script.Agent(script.Config(), 4, 2), []
    monkeypatch.setattr(Path, "unlink", held)
    with pytest.raises(PermissionError):
        script.save_training(tmp_path, agent, history)
    assert {"history.csv", "weights.pth"} <= set(os.listdir(tmp_path))


@pytest.mark.slow
def test_ctrl_c_stops_and_saves(start, tmp_path):
    process = start("dqn_cartpole", "--episodes", 100_000, "--learning-rate", 0)  # without end
    assert process.stdout.readline().startswith("episode")
    assert process.stdout.readline().split()[0] == "10"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=600)
    assert (process.returncode, err) == (0, "")
    assert "Interrupted: what was learned is kept.\nNot solved after " in out
    folder = tmp_path / "runs" / "dqn_cartpole"
    assert sorted(os.listdir(folder)) == FILES
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    assert not summary["solved"] and summary["episodes"] == len(read_history(folder)) >= 10


@TWO
def test_ctrl_c_in_the_first_steps_still_saves(script, monkeypatch, capsys, tmp_path):
    """Before any line of the history."""

    def interrupted(self, *arguments, **options):
        signal.raise_signal(signal.SIGINT)

    step = "act" if hasattr(script.Agent, "act") else "sample"
    real = getattr(script.Agent, step)
    monkeypatch.setattr(script, "film", lambda *_: monkeypatch.setattr(script.Agent, step, real))
    monkeypatch.setattr(script, "animate", lambda *_: None)
    monkeypatch.setattr(script.Agent, step, interrupted)
    script.main(["--output-dir", str(tmp_path)])
    assert "Interrupted: what was learned is kept.\nNot solved after 0 " in capsys.readouterr().out
    assert (tmp_path / "history.csv").read_text(encoding="utf-8").count("\n") == 1  # only the head
    summary = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))
    assert not summary["solved"] and summary["episodes"] == summary["env_steps"] == 0
    assert (tmp_path / "weights.pth").exists()


@pytest.mark.parametrize("step", ["evaluate", "plot", "film", "animate"])
@TWO
def test_what_fails_after_training_costs_no_training(script, step, monkeypatch, tmp_path):
    """Such as a second Ctrl-C. Results of an earlier run are gone."""

    def fail(*arguments):
        raise KeyboardInterrupt

    def no_pictures(*arguments):
        return []

    for name in ("plot", "film", "animate"):
        monkeypatch.setattr(script, name, no_pictures)
    monkeypatch.setattr(script, step, fail)
    for result in (*PICTURES, "summary.json"):
        (tmp_path / result).write_text("of an earlier run")
    with pytest.raises(KeyboardInterrupt):
        limit = "--steps=80" if script.NAME == "a2c_cartpole" else "--episodes=1"
        script.main([limit, "--output-dir", str(tmp_path)])
    assert [name for name in sorted(os.listdir(tmp_path)) if name != "summary.json"] == TRAINING
    assert (tmp_path / "summary.json").exists() == (step != "evaluate")
    assert len(read_history(tmp_path)) == 1
    assert torch.load(tmp_path / "weights.pth", weights_only=True)


@scripts(*CARTPOLE_NAMES)
def test_the_final_games_are_none_of_the_training(script, monkeypatch, tmp_path):
    """Their seed is larger than that of any training, and not the same for all."""
    seeds = []

    def watched(name):
        def call(agent, config, seed):
            seeds.append(seed)
            return np.ones(1, int)

        monkeypatch.setattr(script, name, call)

    watched("evaluate")
    watched("film")
    monkeypatch.setattr(script, "plot", lambda *_: None)
    monkeypatch.setattr(script, "animate", lambda *_: None)
    for seed in ("3", "4"):
        script.main([*few(script.NAME), "--seed", seed, "--output-dir", str(tmp_path)])
    assert seeds[0] == seeds[1] != seeds[2] == seeds[3]
    assert all(2**32 + 1 < seed < 2**63 for seed in seeds)


# What a process that imports a script keeps


ALONE = """
import os, signal, sys, threading
import gymnasium, torch  # gymnasium sets variables of its own
before = dict(os.environ), signal.getsignal(signal.SIGTERM), torch.get_num_threads()
random = torch.get_rng_state()
import {name} as script
assert (dict(os.environ), signal.getsignal(signal.SIGTERM), torch.get_num_threads()) == before
assert torch.equal(torch.get_rng_state(), random)
assert "matplotlib.pyplot" not in sys.modules
agents = []
arguments = {flags} + ["--output-dir", {folder!r}]
thread = threading.Thread(target=lambda: agents.append(script.main(arguments)))
thread.start()
thread.join()
assert len(repr(agents)) < 200 and "Agent" in repr(agents)
assert "SDL_VIDEODRIVER" not in os.environ and "MPLBACKEND" not in os.environ
print("ready", flush=True)
signal.pause()
"""


@pytest.mark.slow
@TWO
def test_an_import_and_a_thread_leave_the_world_alone(script, tmp_path):
    """And SIGTERM ends the process afterwards."""
    code = ALONE.format(name=script.NAME, flags=few(script.NAME), folder=str(tmp_path))
    environment = {k: v for k, v in os.environ.items() if k != "SDL_VIDEODRIVER"}
    command = [sys.executable, "-W", "error", "-c", code]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, **pipes)
    try:
        lines = iter(process.stdout.readline, "")
        assert "ready\n" in lines, process.stderr.read()
        process.terminate()
        assert process.wait(timeout=60) == -signal.SIGTERM
        assert process.stderr.read() == ""
    finally:
        process.kill()
        process.communicate()


TERMINATED = """
import os, signal, {name} as script
agent = script.Agent(script.Config(), 4, 2)
greedy = agent.greedy
def terminated(state):
    os.kill(os.getpid(), signal.SIGTERM)
    return greedy(state)
agent.greedy = terminated
script.film(agent, script.Config(), 1)
print("went on")
"""


@pytest.mark.slow
@TWO
def test_sigterm_ends_a_process_that_plays_for_the_pictures(script):
    """SDL, which draws them, would take the signal for a window that is closed."""
    code = TERMINATED.format(name=script.NAME)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, "")


@TWO
def test_windows_can_be_opened_after_the_pictures(script, monkeypatch):
    agent = script.Agent(script.Config(), 4, 2)
    monkeypatch.delenv("SDL_VIDEODRIVER", raising=False)
    monkeypatch.delenv("SDL_NO_SIGNAL_HANDLERS", raising=False)
    pictures = script.film(agent, script.Config(max_steps=3), seed=1)
    assert {picture.size for picture in pictures} == {(450, 150)}
    assert "SDL_VIDEODRIVER" not in os.environ


FORKS = """
import multiprocessing, {name} as script
def train(seed):
    flags = {flags} + ["--seed", str(seed), "--no-media", "--output-dir", {folder!r} + str(seed)]
    script.main(flags)
    return seed
if __name__ == "__main__":
    train(0)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        print(pool.map(train, [1, 2]))
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no fork")
def test_processes_forked_after_a_training_train_too(tmp_path):
    """Threads of torch do not survive a fork: such a process would wait for them forever."""
    # Large enough for torch to use its threads
    flags = ["--episodes", "4", "--batch-size", "16", "--hidden-size", "512"]
    code = FORKS.format(name="dqn_cartpole", flags=flags, folder=str(tmp_path / "run"))
    (tmp_path / "forks.py").write_text(code)
    environment = os.environ | {"OMP_NUM_THREADS": "2", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, tmp_path / "forks.py"]
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert process.communicate(timeout=600)[0].endswith("[1, 2]\n")
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)  # the workers too
            process.communicate()


def test_scripts_import_only_what_the_requirements_hold():
    for name in ALL_NAMES:
        allowed = {"gymnasium", "matplotlib", "numpy", "torch", "PIL", "IPython"}
        allowed |= {"ale_py", "tqdm"} if name == "a2c_breakout" else set()
        source = (ROOT / f"{name}.py").read_text(encoding="utf-8")
        imported = set(re.findall(r"^ *(?:import|from) (\w+)", source, re.M))
        assert imported - set(sys.stdlib_module_names) <= allowed
