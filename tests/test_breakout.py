"""Breakout: preparations, weights, stopping and going on, several processes, playing, bad input."""

import copy
import errno
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

import ale_py
import numpy as np
import pytest
import torch
from ale_py import roms
from conftest import ROOT, Scripted
from PIL import Image

import a2c_breakout as breakout
from a2c_breakout import Agent, Config

SHIPPED = ROOT / "weights" / "a2c_breakout.pth"
LAYERS = ("conv.0", "conv.2", "conv.4", "conv.7", "actor", "critic")
SHORT = ("--steps", 200, "--num-envs", 4, "--games", 1, "--output-dir", "out")
STOPPED = ["checkpoint.pth", "history.csv", "summary.json", "weights.pth"]
TRAINED = sorted([*STOPPED, "learning_curve.png", "play.gif", "scores.csv"])


@pytest.fixture
def no_learning(monkeypatch):
    """Play as in training, but learn nothing."""
    monkeypatch.setattr(Agent, "learn", lambda self, rollout, state: 0.0)


def read(path, kind=torch.load):
    """Return what is in a checkpoint, or with kind=json.load in a summary."""
    with open(path, "rb") as file:
        return kind(file)


def wait_for_steps(process, at_least):
    """Read the progress bar until so many steps are done."""
    text = ""
    while not any(int(n) >= at_least for n in re.findall(r"(\d+)/", text)):
        more = process.stderr.read(20)
        assert more, text  # else it has ended
        text = text[-100:] + more


def refused(result, *named):
    """Check that a program ended with one line, which names these, and status 2."""
    status, out, err = result
    assert (
        (status, out) == (2, "")
        and err.count("\n") == 1
        and err.startswith("a2c_breakout.py: error: ")
    ), err
    assert all(str(name) in err for name in named), err


@pytest.fixture
def refuse(monkeypatch, capsys, tmp_path):
    """refuse(arguments, *named): main ends with one line and changes no file."""
    monkeypatch.chdir(tmp_path)

    def refuse(arguments, *named):
        capsys.readouterr()
        before = {file: file.is_file() and file.read_bytes() for file in tmp_path.rglob("*")}
        with pytest.raises(SystemExit) as end:
            breakout.main(list(map(str, arguments)))
        refused((end.value.code, *capsys.readouterr()), *named)
        assert {
            file: file.is_file() and file.read_bytes() for file in tmp_path.rglob("*")
        } == before

    return refuse


# Preparations


def test_the_preparations_against_the_bare_emulator():
    """No-ops, four frames an action, the brighter of the last two, none sticky, grey 84 x 84."""
    _, info = breakout.make_env(40, 18_000).reset(seed=np.arange(40))
    assert 25 < max(info["frame_number"]) <= 30 and min(info["frame_number"]) < 5
    env, colour = breakout.make_env(8, 18_000), breakout.make_env(8, 18_000, colour=True)
    assert env.single_observation_space.shape == (4, 84, 84) and env.single_action_space.n == 4
    state, info = env.reset(seed=np.arange(8))
    colour.reset(seed=np.arange(8))
    no_ops = info["frame_number"]
    assert len(set(no_ops)) > 3
    ale = ale_py.ALEInterface()
    ale.setFloat("repeat_action_probability", 0)
    ale.loadROM(roms.get_rom_path("breakout"))
    actions, pooled, rng = ale.getMinimalActionSet(), 0, np.random.default_rng(0)
    for _ in range(no_ops[0]):
        ale.act(actions[0])
    for t in range(100):
        action = rng.integers(4, size=8) if t else np.ones(8, int)
        last = state
        picture, reward, *_ = colour.step(action)
        state, same, *_ = env.step(action)
        frames, total = [], 0
        for _ in range(4):
            total += ale.act(actions[action[0]])
            frames.append((ale.getScreenRGB(), ale.getScreenGrayscale()))
        expected = np.maximum(frames[2][0], frames[3][0])
        assert (
            np.array_equal(picture[0, 0], expected)
            and total == reward[0]
            and np.array_equal(reward, same)
        )
        pooled += not np.array_equal(expected, frames[3][0])
        grey = Image.fromarray(np.maximum(frames[2][1], frames[3][1])).resize(
            (84, 84), Image.Resampling.BOX
        )
        # Scaled in another way, so that edges differ
        assert np.corrcoef(np.ravel(grey), state[0, -1].ravel())[0, 1] > 0.98
        assert np.array_equal(state[:, :-1], last[:, 1:])
    assert pooled > 10


def test_a_lost_life_ends_the_return_and_keeps_the_wall():
    """It is terminated where a life falls, and only there; the step after a game is not valid."""
    games, rng, kept, skipped = breakout.Games(16, 0, 18_000), np.random.default_rng(0), 0, 0
    for _ in range(400):
        lives, ended, wall = games.lives, games.ended, games.state[:, -1, 22:37, 5:79] > 0
        _, terminated, truncated, valid = games.step(rng.integers(4, size=16))
        lost = games.lives < lives
        assert np.array_equal(terminated, lost) and not truncated.any()
        assert np.array_equal(valid, ~ended) and np.array_equal(games.ended, games.lives == 0)
        after = games.state[:, -1, 22:37, 5:79] > 0
        for i in np.flatnonzero(lost & ~games.ended & ~wall.all((1, 2))):
            assert after[i].sum() <= wall[i].sum()
            kept += 1
        skipped += (~valid).sum()
    assert kept >= 5 and skipped >= 10


@pytest.mark.parametrize("clip, rewards", [(0, {0.0, 7.0}), (1, {0.0, 1.0})])
def test_scores_are_of_whole_games_in_points(clip, rewards, monkeypatch, no_learning):
    """Clipped rewards are for learning; reported are the game's points. Here a brick pays 7."""
    learned, running, expected = set(), np.zeros(8), []
    insert, make_env = breakout.RolloutStorage.insert, breakout.make_env

    def spied_insert(self, *columns):
        learned.update(columns[3].tolist())
        insert(self, *columns)

    class Sevenfold:
        def __init__(self, *arguments):
            self.env = make_env(*arguments)
            self.reset = self.env.reset

        def step(self, action):
            state, reward, terminated, *rest = self.env.step(action)
            running[:] += 7 * reward
            expected.extend(running[terminated].tolist())
            running[terminated] = 0
            return state, 7 * reward, terminated, *rest

    monkeypatch.setattr(breakout.RolloutStorage, "insert", spied_insert)
    monkeypatch.setattr(breakout, "make_env", Sevenfold)
    agent, history = breakout.train(Config(steps=4000, num_envs=8, clip_rewards=clip))
    assert learned == rewards and agent.scores == expected and max(expected) >= 7
    row = history[-1]
    assert (row.games, row.min, row.max) == (len(expected), min(expected), max(expected))
    assert row.mean == pytest.approx(np.mean(expected)) and row.env_steps == agent.env_steps
    json.dumps(row._asdict())


def test_the_seed_decides_everything(monkeypatch, tmp_path):
    """The same seed twice, and another; without a path, nothing is written."""
    monkeypatch.chdir(tmp_path)
    a, b, c = (breakout.train(Config(seed=seed, steps=1200, num_envs=8))[0] for seed in (1, 1, 2))
    weights = [torch.cat([p.flatten() for p in agent.network.parameters()]) for agent in (a, b, c)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    assert a.scores == b.scores != c.scores and os.listdir() == []


def test_the_learning_rate_falls_to_zero(monkeypatch):
    rates = []
    monkeypatch.setattr(
        Agent, "learn", lambda self, *_: rates.append(self.optimizer.param_groups[0]["lr"]) or 0.0
    )
    breakout.train(Config(steps=1600, num_envs=8, learning_rate=0.5))
    np.testing.assert_allclose(rates[:40], 0.5 * (1 - np.arange(40) / 40), rtol=0.02, atol=0.01)
    assert rates[-1] > 0


def test_a_training_feeds_and_reports_what_it_should(monkeypatch):
    """Rollouts of num_steps, the state after them, a line every 100 updates, the last 100 games."""
    states, rollouts, sample = [], [], Agent.sample

    def spied(self, state):
        states.append(state)
        return sample(self, state)

    def learn(self, rollout, next_state):
        rollouts.append((rollout, next_state, len(states)))
        return float(len(rollouts) ** 2)

    make_env = lambda n, frames: Scripted(n, np.random.default_rng(0))  # noqa: E731
    monkeypatch.setattr(breakout, "make_env", make_env)
    monkeypatch.setattr(
        breakout.ActorCritic, "forward", lambda _, s: (s[:, 0, :4, 0] / 255, s[:, 0, 0, 0] / 1)
    )
    monkeypatch.setattr(Agent, "sample", spied)
    monkeypatch.setattr(Agent, "learn", learn)
    agent, history = breakout.train(Config(steps=2800, num_envs=4, num_steps=3))
    assert all(len(rollout.value) == 3 for rollout, *_ in rollouts)
    for rollout, next_state, seen in rollouts[:-1]:
        assert seen % 3 == 0 and np.array_equal(next_state, states[seen])
        assert np.array_equal(rollout.value, np.array(states[seen - 3 : seen])[:, :, 0, 0, 0])
    steps = np.cumsum([int(rollout.valid.sum()) for rollout, *_ in rollouts])
    assert len(rollouts) > 200 and len(history) == 3 and steps[-1] == agent.env_steps
    squares, games = np.arange(1, len(rollouts) + 1) ** 2.0, []
    for row, start, end in zip(history, (0, 100, 200), (100, 200, len(rollouts)), strict=True):
        games.append(row.games)
        last = agent.scores[: row.games][-100:]
        assert row.env_steps == steps[end - 1] and row.loss == pytest.approx(
            squares[start:end].mean()
        )
        assert (row.mean, row.min, row.max) == (pytest.approx(np.mean(last)), min(last), max(last))
    assert 100 < games[0] < games[1] < games[2] == len(agent.scores)


def test_an_update_is_rmsprops(monkeypatch):
    """Each weight moves by the rate, its gradient, and the root of a mean of the gradient's square."""
    agent, rng = Agent(Config(bfloat16=0)), np.random.default_rng(0)
    states = rng.integers(256, size=(3, 2, 4, 84, 84), dtype=np.uint8)
    weights, square, no = (
        list(agent.network.parameters()),
        [0.0] * 12,
        torch.zeros(2, 2, dtype=bool),
    )
    for rate in (1e-3, 5e-4):
        agent.optimizer.param_groups[0]["lr"] = rate
        before = [weight.detach().clone() for weight in weights]
        _, *outputs = zip(*(agent.sample(state) for state in states[:2]), strict=True)
        outputs = [torch.stack(column) for column in outputs]
        agent.learn(breakout.Rollout(*outputs, torch.ones(2, 2), no, no, ~no), states[2])
        for i, weight in enumerate(weights):
            square[i] = 0.99 * square[i] + 0.01 * weight.grad**2
            moved = rate * weight.grad / (square[i].sqrt() + 1e-5)
            torch.testing.assert_close(before[i] - weight.detach(), moved, rtol=1e-2, atol=1e-7)


# Weights


def test_the_network_is_the_books():
    network = breakout.ActorCritic(4)
    weights = network.state_dict()
    assert list(weights) == [f"{layer}.{kind}" for layer in LAYERS for kind in ("weight", "bias")]
    shapes = [tuple(weights[f"{layer}.weight"].shape) for layer in LAYERS]
    assert shapes == [
        (32, 4, 8, 8),
        (64, 32, 4, 4),
        (64, 64, 3, 3),
        (512, 3136),
        (4, 512),
        (1, 512),
    ]
    assert not any(weights[f"{layer}.bias"].any() for layer in LAYERS)
    for layer, gain in zip(LAYERS, [2**0.5] * 4 + [0.01, 1], strict=True):
        weight = weights[f"{layer}.weight"].flatten(1)
        torch.testing.assert_close(
            weight @ weight.T, gain**2 * torch.eye(len(weight)), rtol=1e-3, atol=1e-4
        )
    state = torch.randint(256, (3, 4, 84, 84), dtype=torch.uint8)
    logits, value = network(state)
    assert (logits.shape, value.shape) == ((3, 4), (3,))
    hidden = (state.double() / 255).float()
    for layer in (0, 2, 4):
        hidden = network.conv[layer](hidden).relu()
    hidden = network.conv[7](
        hidden.reshape(3, -1)
    ).relu()  # flattened as in the book: channel, row, column
    torch.testing.assert_close(logits, network.actor(hidden), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("half, new", [(True, True), (False, True), (False, False)])
def test_weights_of_either_precision_and_format_load(half, new, tmp_path):
    """Ours, in half precision, and a file of the book's time, in the old format."""
    weights = Agent(Config()).network.state_dict()
    weights = {k: v.half() if half else v.contiguous() for k, v in weights.items()}
    torch.save(weights, tmp_path / "w.pth", _use_new_zipfile_serialization=new)
    network = breakout.ActorCritic(4)
    breakout.load(tmp_path / "w.pth", network.load_state_dict)
    for name, weight in network.state_dict().items():
        assert weight.dtype == torch.float32 and torch.equal(weight, weights[name].float())


@pytest.mark.parametrize("there, wanted", [(True, 1), (True, 0), (False, 1)])
def test_bfloat16_is_used_where_the_cpu_has_it_unless_turned_off(
    there, wanted, monkeypatch, tmp_path
):
    (tmp_path / "cpuinfo").write_text("flags: fpu amx_bf16" if there else "flags: fpu")
    monkeypatch.setattr(breakout, "Path", lambda path: tmp_path / path.replace("/proc/", ""))
    agent, inside = Agent(Config(bfloat16=wanted)), []
    agent.network.conv[7].register_forward_hook(lambda _, __, hidden: inside.append(hidden.dtype))
    _, *outputs = agent.sample(np.zeros((2, 4, 84, 84), np.uint8))
    assert inside == [torch.bfloat16 if there and wanted else torch.float32]
    assert all(column.dtype == torch.float32 for column in outputs)


# Training, stopping and going on


def test_a_training_writes_its_files_and_is_not_begun_anew(run, tmp_path):
    arguments = ("--steps", 2400, "--num-envs", 8, "--games", 2)
    status, out, err = run("a2c_breakout", *arguments)
    folder = tmp_path / "runs" / "a2c_breakout"
    assert status == 0 and sorted(os.listdir(folder)) == TRAINED and "Trained for 2,4" in out
    assert "mean score" in err and "nan" not in out + err
    summary = read(folder / "summary.json", json.load)
    assert (
        2400 <= summary["env_steps"] < 2440 and summary["games"] > 5 and not summary["interrupted"]
    )
    assert (
        summary["evaluation"]["episodes"] == 2
        and f"mean {summary['evaluation']['mean']:.1f}" in out
    )
    history = np.genfromtxt(folder / "history.csv", delimiter=",", names=True, ndmin=1)
    assert history.dtype.names == breakout.Update._fields and history["env_steps"] == [
        summary["env_steps"]
    ]
    scores = np.genfromtxt(folder / "scores.csv", delimiter=",", names=True)
    assert scores["game"].tolist() == [1, 2] and (scores["best_life"] <= scores["score"]).all()
    assert os.path.getsize(folder / "weights.pth") < 4e6
    with Image.open(folder / "play.gif") as gif:
        assert gif.size == (160, 210) and gif.n_frames > 50
    refused(run("a2c_breakout", *arguments), "--resume")
    assert sorted(os.listdir(folder)) == TRAINED


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_saves_and_is_resumed_with_all_settings(number, start, run, tmp_path):
    settings = {"num_envs": 4, "learning_rate": 0.002, "gamma": 0.9}
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    process, out = start("a2c_breakout", *flags, "--output-dir", "out"), tmp_path / "out"
    wait_for_steps(process, 100)
    process.send_signal(number)
    text, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "game  score" not in text and "Traceback" not in err
    assert sorted(os.listdir(out)) == STOPPED  # no game finished: no empty picture
    summary = read(out / "summary.json", json.load)
    assert summary["interrupted"] and summary["evaluation"] is None and summary["env_steps"] > 0
    may_change = {"steps": summary["env_steps"] + 200, "games": 1, "checkpoint_every": 50}
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in may_change.items()]
    assert run("a2c_breakout", "--resume", "--output-dir", "out", *flags)[0] == 0
    saved = read(out / "checkpoint.pth")
    assert saved["config"] == vars(Config(**settings, **may_change))
    assert may_change["steps"] <= saved["progress"][0] < may_change["steps"] + 20


@pytest.mark.parametrize(
    "mode", [("--steps", 200, "--num-envs", 4, "--games", 50), ("play", "--games", 4)]
)
def test_interrupted_games_leave_no_traceback_and_what_was_trained(mode, start, tmp_path):
    process = start("a2c_breakout", *mode, "--output-dir", "out")
    while "best life" not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in err
    assert sorted(os.listdir(tmp_path / "out")) == (["summary.json"] if "play" in mode else STOPPED)


def test_an_interrupted_agent_can_be_copied_and_goes_on(monkeypatch):
    step, steps = breakout.Games.step, []

    def interrupted(self, action):
        steps.append(action)
        if len(steps) == 108:
            raise KeyboardInterrupt
        return step(self, action)

    monkeypatch.setattr(breakout.Games, "step", interrupted)
    agent, history = breakout.train(Config(steps=500, num_envs=4))
    assert agent.env_steps == 420 and history == []
    copied, _ = breakout.train(Config(steps=500, num_envs=4), copy.deepcopy(agent))
    assert (agent.env_steps, copied.env_steps) == (420, 500)


def test_a_checkpoint_restores_exactly(tmp_path):
    """Weights, optimizer, counts, history, scores and generator are as they were."""
    config, path = Config(steps=1600, num_envs=8), tmp_path / "checkpoint.pth"
    agent, history = breakout.train(config, path=path)
    generator, restored = torch.get_rng_state(), Agent(config)
    breakout.load(path, restored.restore)
    assert torch.equal(torch.get_rng_state(), generator) and len(agent.scores) > 1
    for a, b in ((agent.network, restored.network), (agent.optimizer, restored.optimizer)):
        a, b = (torch.utils._pytree.tree_leaves(x.state_dict()) for x in (a, b))
        a, b = ([torch.as_tensor(x) for x in leaves if x is not None] for leaves in (a, b))
        assert len(a) == len(b) > 8 and all(map(torch.equal, a, b))
    for name in ("history", "scores", "env_steps", "seconds"):
        assert repr(getattr(restored, name)) == repr(getattr(agent, name))
    assert breakout.train(config, restored)[1] == history  # nothing is left to do


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), RuntimeError("full"), "folder"])
def test_a_failed_checkpoint_is_one_line_and_tried_again(
    error, monkeypatch, capsys, tmp_path, no_learning
):
    path, save, tries = tmp_path / "checkpoint.pth", torch.save, []

    def failing(content, part):
        tries.append(content)
        part.write_bytes(b"half")
        if error == "folder" and len(tries) == 2:
            path.rmdir()
        elif len(tries) == 1 and error != "folder":
            raise error
        save(content, part)
        assert len(os.listdir(tmp_path)) <= 2

    if error == "folder":
        path.mkdir()
    monkeypatch.setattr(torch, "save", failing)
    breakout.train(Config(steps=400, num_envs=4, checkpoint_every=200), path=path)
    lines = [line for line in capsys.readouterr().err.splitlines() if "can't write" in line]
    assert len(tries) == 3 and len(lines) == 1 and str(path) in lines[0]
    assert os.listdir(tmp_path) == ["checkpoint.pth"] and read(path)["progress"][0] == 400


def test_a_failed_write_leaves_nothing(tmp_path):
    """Not even the part that was written."""

    def write(path):
        raise RuntimeError(path.write_bytes(b"half"))

    assert not breakout.save(tmp_path / "file", write) and os.listdir(tmp_path) == []


def test_a_folder_that_is_gone_is_one_line(tmp_path, capsys):
    """Not an error that ends a training of hours."""
    folder = tmp_path / "out"

    def write(path):
        shutil.rmtree(folder)
        folder.write_text("in its place")
        path.write_bytes(b"content")

    folder.mkdir()
    assert not breakout.save(folder / "file", write)
    assert capsys.readouterr().err.count("\n") == 1 and folder.read_text() == "in its place"


def test_kill_9_at_any_moment_leaves_a_whole_checkpoint(start, tmp_path):
    """At random, again and again; each run goes on from the one before, and loses little."""
    rng, done = random.Random(0), 0
    for attempt in range(4):
        process = start(
            "a2c_breakout",
            *(["--resume"] if attempt else ["--num-envs", 4, "--checkpoint-every", 20]),
        )
        wait_for_steps(process, done + 40)
        time.sleep(rng.random() * 0.2)
        process.kill()
        process.communicate()
        saved = breakout.load(
            tmp_path / "runs" / "a2c_breakout" / "checkpoint.pth",
            lambda saved: saved["progress"][0],
        )
        assert saved >= done + 20
        done = saved


def test_kill_9_in_the_middle_of_a_write_keeps_the_old_file(tmp_path):
    """What is being written has another name until it is whole."""
    (tmp_path / "file").write_text("old")
    code = """
import os, pathlib, sys, a2c_breakout as breakout
def die(path):
    path.write_bytes(b"half")
    os.kill(os.getpid(), 9)
breakout.save(pathlib.Path(sys.argv[1]), die)
"""
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "file"], cwd=ROOT)
    assert done.returncode == -9 and (tmp_path / "file").read_text() == "old"


def test_two_runs_share_a_folder(start, tmp_path):
    runs = [
        start("a2c_breakout", *SHORT, "--steps", 1000, "--no-media", "--seed", i)
        for i in range(2)  # the later one would be refused if the first had a checkpoint by then
    ]
    assert [(run.communicate(timeout=60)[1].count("can't"), run.returncode) for run in runs] == [
        (0, 0)
    ] * 2
    assert sorted(os.listdir(tmp_path / "out")) == sorted([*STOPPED, "scores.csv"])


SHELLS = ["{} 2>&-", "{} | head -n 1", "{} 2>&1 | head -c 5", "MPLBACKEND=nonsense {} --steps 1600"]
SHELLS += ["{} 2>&1 | true", "{} >/dev/full"]


@pytest.mark.parametrize("shell", SHELLS)
def test_odd_surroundings(shell, tmp_path):
    """Closed outputs, readers who leave, a backend for pictures that does not exist."""
    command = " ".join(map(str, [sys.executable, "-W", "error", ROOT / "a2c_breakout.py", *SHORT]))
    command = ["bash", "-o", "pipefail", "-c", shell.format(command)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "Traceback" not in done.stderr
    without = set() if "1600" in shell else {"learning_curve.png"}  # no game finishes sooner
    assert set(os.listdir(tmp_path / "out")) == set(TRAINED) - without


def test_no_thread_of_the_bar_outlives_the_training(tmp_path):
    """tqdm's monitor would wait for ever, at the end, for what a closed pipe left locked."""
    command = [str(ROOT / "a2c_breakout.py"), *map(str, SHORT)]
    code = f"""
import runpy, sys, tqdm
sys.argv = {command!r}
runpy.run_path(sys.argv[0], run_name="__main__")
assert tqdm.tqdm.monitor is None"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True)
    assert done.returncode == 0


def test_main_works_in_a_thread(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    agents, environment = [], dict(os.environ)
    thread = threading.Thread(
        target=lambda: agents.append(breakout.main([*map(str, SHORT), "--no-media"]))
    )
    thread.start()
    thread.join()
    assert agents[0].env_steps == 200 and os.environ == environment


def test_an_import_leaves_the_environment_alone():
    code = "import os, gymnasium; old = dict(os.environ); import a2c_breakout; assert old == os.environ"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env={}, check=True)


def test_a_cell_run_again_goes_on(tmp_path):
    """As in a notebook: no __file__, the kernel's arguments, a signal handler that is not ours."""
    (tmp_path / "display.py").write_text(
        "Image = str\ndef display(*pictures): print('shown', *pictures)\n"
    )
    code = (
        (ROOT / "a2c_breakout.py")
        .read_text()
        .replace("10_000_000, 1", "400, 1")
        .replace("setting(10, 1, 1000", "setting(1, 1, 1000")
    )
    (tmp_path / "cell.py").write_text(code)
    session = """
import sys, types
import display
sys.modules |= {"ipykernel": types.ModuleType("ipykernel"), "IPython": types.ModuleType("IPython")}
sys.modules["IPython"].display = display
sys.argv = ["kernel", "-f", "connection.json"]
for _ in range(2):
    exec(open("cell.py").read(), {"__name__": "__main__"})
"""
    done = subprocess.run(
        [sys.executable, "-c", session], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("shown") == done.stdout.count("Trained for 480 steps") == 2


# Several processes

GRADIENTS = """
import numpy as np, torch, torch.distributed as dist
from a2c_breakout import Agent, Config, Rollout
def gradient(columns):
    torch.manual_seed(0)
    agent, data = Agent(Config(max_grad_norm=1000, bfloat16=0)), np.load("data.npz")
    agent.optimizer.step = lambda: None
    state = torch.from_numpy(data["state"][:5, columns])
    logits, value = (x.unflatten(0, state.shape[:2]) for x in agent.network(state.flatten(0, 1)))
    names = ("reward", "terminated", "truncated", "valid")
    rest = [torch.from_numpy(data[name][:, columns]) for name in names]
    log_prob = logits.log_softmax(-1)
    entropy = -(log_prob * log_prob.exp()).sum(-1)
    agent.learn(Rollout(log_prob[..., 0], entropy, value, *rest), data["state"][5, columns])
    return torch.cat([p.grad.flatten() for p in agent.network.parameters()])
whole = gradient(slice(None))
dist.init_process_group("gloo")
rank = dist.get_rank()
torch.save([whole, gradient(slice(4 * rank, 4 * rank + 4))], f"rank{rank}.pth")
"""

COUNTS = """
import os, sys, torch, a2c_breakout as breakout
ours, count, rank = [0, [], []], breakout.Games.count, os.environ["RANK"]
save = breakout.save
def saved(path, write):
    assert rank == "0", f"rank {rank} writes {path}"
    return save(path, write)
breakout.save = saved
def spied(self):
    ours[2] = self.seeds.tolist()
    ours[0] += self.env_steps
    ours[1] += self.scores
    return count(self)
breakout.Games.count = spied
agent = breakout.main(sys.argv[1:])
torch.save([agent.network.state_dict(), agent.env_steps, agent.scores, ours], f"rank{rank}.pth")
"""


def torchrun(folder, script, *arguments):
    """Start a script, or code, in two processes."""
    if "\n" in str(script):
        (folder / "worker.py").write_text(script)
        script = "worker.py"
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
    ]
    environment, pipe = os.environ | {"PYTHONPATH": str(ROOT)}, subprocess.PIPE
    command += map(str, [script, *arguments])
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=pipe, stderr=pipe, text=True
    )


def test_two_processes_share_weights_and_count_all_games(tmp_path):
    process = torchrun(tmp_path, COUNTS, "--steps", 2000, *SHORT[2:], "--no-media")
    out, err = process.communicate(timeout=100)
    assert process.returncode == 0 and out.count("Trained for") == out.count("Results are") == 1, (
        err
    )
    a, b = (torch.load(tmp_path / f"rank{rank}.pth") for rank in (0, 1))
    assert all(torch.equal(a[0][name], b[0][name]) for name in a[0])
    assert a[1] == b[1] == a[3][0] + b[3][0] and 2000 <= a[1] < 2040
    assert len({*a[3][2], *b[3][2]}) == 8  # different games
    assert a[2] == b[2] and sorted(a[2]) == sorted(a[3][1] + b[3][1]) and len(a[2]) > 2
    assert read(tmp_path / "out" / "checkpoint.pth")["progress"][::2] == [a[1], a[2]]


def test_no_two_processes_act_alike(monkeypatch, tmp_path):
    """Each has games and a random stream of its own, and others when it goes on."""
    drawn, begun = [], []

    class Begun(breakout.Games):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            begun.append(self.seeds[0])

    def sample(agent, state):
        drawn.append(tuple(torch.rand(3).tolist()))
        raise KeyboardInterrupt

    monkeypatch.setattr(breakout, "Games", Begun)
    monkeypatch.setattr(Agent, "sample", sample)
    agent = Agent(Config(num_envs=1))
    monkeypatch.setattr(breakout.dist, "is_initialized", lambda: True)
    for agent.env_steps in (0, 500):
        for rank in range(4):
            torch.manual_seed(agent.env_steps)
            monkeypatch.setattr(breakout.dist, "get_rank", lambda rank=rank: rank)
            breakout.train(agent.config, agent)
    assert len(set(drawn)) == len(drawn) == len(set(begun)) == len(begun) == 8


def test_the_averaged_gradient_is_one_processs_over_both_halves(tmp_path):
    rng, shape = np.random.default_rng(0), (5, 8)
    data = {name: rng.random(shape) < 0.2 for name in ("terminated", "truncated")}
    data |= {
        "state": rng.integers(256, size=(6, 8, 4, 84, 84), dtype=np.uint8),
        "valid": np.ones(shape, bool),
    }
    np.savez(tmp_path / "data.npz", **data, reward=rng.normal(size=shape).astype(np.float32))
    process = torchrun(tmp_path, GRADIENTS)
    assert process.communicate(timeout=100) and process.returncode == 0
    (whole, a), (_, b) = (torch.load(tmp_path / f"rank{rank}.pth") for rank in (0, 1))
    assert torch.equal(a, b) and a.norm() > 1e-3
    torch.testing.assert_close(a, whole, rtol=1e-3, atol=1e-6)


def test_a_signal_to_torchrun_ends_all_and_leaves_a_checkpoint(tmp_path):
    process = torchrun(tmp_path, ROOT / "a2c_breakout.py", "--num-envs", 4, "--output-dir", "out")
    wait_for_steps(process, 100)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert sorted(os.listdir(tmp_path / "out")) == STOPPED and read(
        tmp_path / "out" / "checkpoint.pth"
    )


# Playing


def test_random_shows_the_task(run, tmp_path):
    status, out, err = run("a2c_breakout", "random", "--games", 3)
    assert (status, err) == (0, "")
    assert "(4, 84, 84)" in out and "'NOOP', 'FIRE', 'RIGHT', 'LEFT'" in out
    assert sorted(os.listdir(tmp_path / "runs" / "a2c_breakout" / "random")) == [
        "play.gif",
        "scores.csv",
        "summary.json",
    ]


def test_fire_starts_each_life_and_nothing_else():
    """Also after a reset by time; the policy's action is overruled there, and only there."""
    games, rng, served, waiting = breakout.Games(8, 0, 200), np.random.default_rng(0), 0, 0
    for _ in range(900):
        action, ended, lives = rng.choice([0, 2, 3], 8), games.ended, games.lives
        begins = games.begins.copy()
        games.step(action)
        assert np.array_equal(games.action, np.where(begins, 1, action))
        assert np.array_equal(games.begins, (games.lives != lives) | ended)
        waiting = np.where(games.state[:, -1, 40:74, 5:79].any((1, 2)), 0, waiting + 1)
        assert (waiting < 60).all()  # a ball above the wall can't be seen
        served += (begins & ~ended).sum()
    assert served > 100
    games = breakout.Games(8, 0, 1600, fire=0)
    games.step(action)
    assert games.action is action


@pytest.mark.parametrize("frames", [Config.max_frames, 400])
def test_a_game_that_does_not_end_is_cut_short(frames):
    """Nobody ever presses FIRE. Time up is no end: it is truncated, not terminated."""
    games, steps, truncated = breakout.Games(1, 0, frames, fire=0), 0, [False]
    while not games.ended[0]:
        _, terminated, truncated, _ = games.step(np.zeros(1, int))
        steps += 1
    assert truncated[0] and not terminated[0] and frames / 4 - 30 <= steps <= frames / 4


def test_a_game_cut_short_leaves_no_points_to_the_next():
    games = breakout.Games(1, 0, 220)
    while not games.ended:
        games.life[:] = 7
        games.step(np.zeros(1, int))
    assert games.best_life == games.life == 7  # the game ended in the middle of a life
    games.step(np.zeros(1, int))
    assert games.score == games.best_life == games.life == 0


def test_the_shipped_agent_plays_out_of_the_box(run, tmp_path):
    """As well as its training says; the animation is game 1."""
    status, out, err = run("a2c_breakout", "play", "--games", 8)
    assert (status, err) == (0, "") and os.path.getsize(SHIPPED) < 4e6
    mean = float(re.search(r"8 games: mean ([\d.]+)", out)[1])
    folder = tmp_path / "runs" / "a2c_breakout" / "play"
    assert mean >= 380 and sorted(os.listdir(folder)) == ["play.gif", "scores.csv", "summary.json"]
    scores = np.genfromtxt(folder / "scores.csv", delimiter=",", names=True)["score"]
    assert scores.mean() == pytest.approx(mean, abs=0.1)


# Bad input


class Malicious:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def foreign_files(folder, good):
    """Write files that are neither weights nor checkpoints of ours; return their names."""
    torch.save(good, folder / "good.pth")
    whole = (folder / "good.pth").read_bytes()
    (folder / "good.pth").unlink()
    (folder / "truncated.pth").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.pth").write_bytes(b"")
    (folder / "text.pth").write_text("no weights")
    (folder / "folder.pth").mkdir()
    torch.save(Malicious(), folder / "malicious.pth")
    torch.save([1, 2], folder / "list.pth")
    torch.save({"config": {"speed": 3}}, folder / "dict.pth")
    return ["truncated", "empty", "text", "folder", "malicious", "list", "dict"]


def test_bad_weights_are_one_line(refuse, tmp_path):
    good = Agent(Config()).network.state_dict()
    names = foreign_files(tmp_path, good)
    torch.save({k: v for k, v in good.items() if k != "actor.bias"}, tmp_path / "missing.pth")
    torch.save(good | {"actor.weight": torch.zeros(6, 512)}, tmp_path / "other_game.pth")
    torch.save({k: torch.full_like(v, torch.nan) for k, v in good.items()}, tmp_path / "nan.pth")
    for name in [*names, "nowhere", "missing", "other_game", "nan"]:
        refuse(["play", "--weights", f"{name}.pth"], f"{name}.pth")


def test_a_script_without_its_weights_says_where_they_are(tmp_path):
    (tmp_path / "a2c_breakout.py").write_text((ROOT / "a2c_breakout.py").read_text())
    command = [sys.executable, "a2c_breakout.py", "play"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    refused(
        (done.returncode, done.stdout, done.stderr),
        "a2c_breakout.pth",
        "in the folder weights of this project",
    )


def test_bad_checkpoints_and_other_settings_are_one_line(refuse, tmp_path):
    path = tmp_path / "checkpoint.pth"
    resume = ["--resume", "--output-dir", "."]
    refuse(resume, "checkpoint.pth")  # there is none
    breakout.train(Config(steps=100, num_envs=4), path=path)
    good = read(path)
    refuse([*resume, "--gamma", 0.5], "gamma", "0.99", "0.5")
    refuse([*resume, "--num-envs", 4, "--seed", 1], "seed")
    refuse([*resume, "--seed", 1, "--gamma", 0.5, "--value-coef", 1, "--fire", 0], "fire is 1")
    broken = {k: torch.full_like(v, torch.nan) for k, v in good["network"].items()}
    torch.save(good | {"network": broken}, path)
    refuse(resume, "checkpoint.pth is not finite")
    for name in foreign_files(tmp_path, good):
        path.unlink()
        (tmp_path / f"{name}.pth").rename(path)
        refuse(resume, "checkpoint.pth")
        if path.is_dir():
            path.rmdir()
            path.touch()


BAD = [
    (["watch"], "'watch'"),
    (["--games", "0"], "games"),
    (["play", "--games", "100000"], "games"),
    (["--num-envs", "0"], "num_envs"),
    (["--steps", "many"], "'many'"),
    (["--clip-rewards", "2"], "clip_rewards"),
    (["--gamma", "nan"], "gamma"),
    (["--seed", str(2**32)], "seed"),
    (["--output-dir", "file"], "file"),
    (["random", "--output-dir", "/proc/nothing"], "/proc/nothing"),
    (["play", "--resume"], "--resume"),
]


@pytest.mark.parametrize("arguments, named", BAD)
def test_bad_input_is_one_line(arguments, named, refuse, tmp_path):
    (tmp_path / "file").write_text("kept")
    refuse(arguments, named)


@pytest.mark.parametrize(
    "module, version", [(torch, "2.3.1+cpu"), (np, "1.25.2"), (ale_py, "0.11.1")]
)
def test_an_old_library_is_one_line(module, version, refuse, monkeypatch):
    monkeypatch.setattr(module, "__version__", version)
    refuse([], f"{module.__name__} is older than")


def test_the_oldest_torch_is_new_enough(monkeypatch, tmp_path):
    monkeypatch.setattr(torch, "__version__", "2.4.0+cu121")
    assert breakout.parse(["--output-dir", str(tmp_path)])[0].output_dir == tmp_path


def test_every_field_is_a_flag(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    status, out, err = run("a2c_breakout", "--help")
    assert (status, err) == (0, "") and max(map(len, out.splitlines())) <= 80
    for name in [
        *Config.__dataclass_fields__,
        "resume",
        "weights",
        "games",
        "output-dir",
        "no-media",
    ]:
        assert f"--{name.replace('_', '-')}" in out
