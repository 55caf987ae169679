"""Breakout: preparations, weights, stopping and going on, several processes, playing, bad input."""

import csv
import errno
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import ale_py
import numpy as np
import pytest
import torch
from ale_py import roms
from conftest import ROOT, Scripted
from PIL import Image

import a2c_breakout as breakout
from a2c_breakout import Agent, Config, Games, Progress

SHIPPED = ROOT / "weights" / "a2c_breakout.pth"
RNG = np.random.default_rng(0)
LAYERS = ("conv.0", "conv.2", "conv.4", "conv.7", "actor", "critic")
SHORT = ["--steps=200", "--num-envs=4", "--games=1", "--max-frames=200"]
STOPPED = ["checkpoint.pth", "history.csv", "learning_curve.png", "summary.json", "weights.pth"]
TRAINED = sorted([*STOPPED, "play.gif", "scores.csv"])
DEFAULTS = {
    "seed": 0,
    "steps": 10_000_000,
    "num_envs": 32,
    "num_steps": 5,
    "gamma": 0.99,
    "learning_rate": 0.001,
    "rmsprop_alpha": 0.9,
    "value_coef": 0.5,
    "entropy_coef": 0.01,
    "max_grad_norm": 0.5,
    "clip_rewards": True,
    "bfloat16": True,
    "fire": True,
    "max_frames": 18_000,
    "games": 10,
    "temperature": 0.7,
    "patience": 500,
    "checkpoint_every": 100_000,
}


@pytest.fixture
def no_learning(monkeypatch):
    """Play at random, and learn nothing: for what does not hang on the network."""

    def sample(self, state):
        zeros = torch.zeros(len(state))
        return torch.randint(4, (len(state),)).numpy(), zeros, zeros, zeros

    monkeypatch.setattr(Agent, "sample", sample)
    monkeypatch.setattr(Agent, "learn", lambda self, rollout, state: 0.0)


def read_csv(path):
    """Return the lines of a CSV file, the header first."""
    with open(path, newline="") as file:
        return list(csv.reader(file))


def stopped(folder):
    """What a training that was stopped leaves: a curve only if a game was over."""
    games = int(read_csv(folder / "history.csv")[-1][1])
    return [name for name in STOPPED if games or name != "learning_curve.png"]


def steps_in(path):
    """Return the steps that a checkpoint counts."""
    return torch.load(path, weights_only=True)["progress"]["env_steps"]


def wait_for_steps(process, at_least):
    """Read the progress bar until so many steps are done."""
    text = ""
    while not any(int(n) >= at_least for n in re.findall(r"(\d+)/", text)):
        more = process.stderr.read(20)
        assert more, text  # else it has ended
        text = text[-100:] + more


def content_of(folder):
    """Return {path: its bytes, None for a folder}."""
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.fixture
def refuse(monkeypatch, capsys, tmp_path):
    """refuse(arguments, *named): main ends with one line, which names these, and status 2."""
    monkeypatch.chdir(tmp_path)

    def refuse(arguments, *named, script=breakout):
        capsys.readouterr()
        before = content_of(tmp_path)
        with pytest.raises(SystemExit) as end:
            script.main(list(map(str, arguments)))
        out, err = capsys.readouterr()
        assert (end.value.code, out, err.count("\n")) == (2, "", 1), err
        assert err.startswith("a2c_breakout.py: error: ")
        assert all(str(name) in err for name in named), err
        assert content_of(tmp_path) == before  # no file changed

    return refuse


@pytest.fixture
def no_training(monkeypatch):
    """Fail if a training begins."""
    monkeypatch.setattr(breakout, "Games", lambda *_: pytest.fail("a training began"))


# Preparations


@pytest.mark.slow
def test_the_preparations_against_the_bare_emulator():
    """No-ops, four frames an action, the brighter of the last two, none sticky, grey 84 x 84."""
    _, info = breakout.make_env(24, 18_000).reset(seed=np.arange(24))
    assert 25 < max(info["frame_number"]) <= 30 and min(info["frame_number"]) < 5
    env = breakout.make_env(4, 18_000)
    colour = breakout.make_env(4, 18_000, colour=True)
    assert env.single_observation_space.shape == (4, 84, 84) and env.single_action_space.n == 4
    state, info = env.reset(seed=np.arange(4))
    colour.reset(seed=np.arange(4))
    no_ops = info["frame_number"]
    assert len(set(no_ops)) > 2
    ale = ale_py.ALEInterface()
    ale.setFloat("repeat_action_probability", 0)
    ale.loadROM(roms.get_rom_path("breakout"))
    actions = ale.getMinimalActionSet()
    rng = np.random.default_rng(0)
    pooled = 0
    for _ in range(no_ops[0]):
        ale.act(actions[0])
    for t in range(60):
        action = rng.integers(4, size=4) if t else np.ones(4, int)
        last = state
        picture, reward, *_ = colour.step(action)
        state, same, *_ = env.step(action)
        points = 0
        frames = []
        for _ in range(4):
            points += ale.act(actions[action[0]])
            frames.append((ale.getScreenRGB(), ale.getScreenGrayscale()))
        expected = np.maximum(frames[2][0], frames[3][0])
        assert np.array_equal(picture[0, 0], expected)
        assert points == reward[0] and np.array_equal(reward, same)
        pooled += not np.array_equal(expected, frames[3][0])
        grey = Image.fromarray(np.maximum(frames[2][1], frames[3][1]))
        grey = grey.resize((84, 84), Image.Resampling.BOX)
        # Scaled in another way, so that edges differ
        assert np.corrcoef(np.ravel(grey), state[0, -1].ravel())[0, 1] > 0.98
        assert np.array_equal(state[:, :-1], last[:, 1:])
    assert pooled > 5


@pytest.mark.slow
def test_a_lost_life_ends_the_return_and_keeps_the_wall():
    """It is terminated where a life falls, and only there; the step after a game is not valid."""
    games = Games(12, 0, 18_000, True)
    rng = np.random.default_rng(0)
    kept = 0
    skipped = 0
    for _ in range(400):
        lives = games.lives
        ended = games.ended
        wall = games.state[:, -1, 22:37, 5:79] > 0
        _, terminated, truncated, valid = games.step(rng.integers(4, size=12))
        lost = games.lives < lives
        assert np.array_equal(terminated, lost) and not truncated.any()
        assert not (valid & ended).any() and np.array_equal(games.ended, games.lives == 0)
        after = games.state[:, -1, 22:37, 5:79] > 0
        for i in np.flatnonzero(lost & ~games.ended & ~wall.all((1, 2))):
            assert after[i].sum() <= wall[i].sum()
            kept += 1
        skipped += (ended & ~valid).sum()
    assert kept >= 5 and skipped >= 10


@pytest.mark.parametrize("fire", [True, False])
def test_masks_lives_fire_and_scores_of_a_scripted_environment(fire, monkeypatch):
    """Each game is followed by hand, through lost lives, ends, cuts, and both at once."""
    env = Scripted(6, np.random.default_rng(0))
    monkeypatch.setattr(breakout, "make_env", lambda num_envs, max_frames: env)
    env_step = env.step
    seen = []

    def step(action):
        seen.append((action, *env_step(action)))
        return seen[-1][1:]

    env.step = step
    games = Games(6, 0, 18_000, fire)
    rng = np.random.default_rng(1)
    lives = [5] * 6
    score = [0] * 6
    idle = [0] * 6
    over = [False] * 6
    life_begins = [True] * 6
    finished = []
    kinds = set()
    for _ in range(500):
        wanted = rng.choice([0, 2, 3], 6)
        reward, terminated, truncated, valid = games.step(wanted)
        assert reward.dtype == np.float32
        played, state, points, game_over, cut, info = seen[-1]
        assert games.state is state and np.array_equal(games.action, played)
        for i in range(6):
            assert played[i] == (1 if fire and life_begins[i] else wanted[i])
            lost = not over[i] and info["lives"][i] < lives[i]
            assert (reward[i], terminated[i], truncated[i]) == (points[i], lost, cut[i])
            assert valid[i] == (not over[i] and not (fire and life_begins[i]))
            score[i] = 0 if over[i] else score[i] + points[i]
            idle[i] = 0 if over[i] or points[i] > 0 else idle[i] + 1
            assert (games.score[i], games.idle[i]) == (score[i], idle[i])
            kinds.add((bool(lost), bool(game_over[i]), bool(cut[i])))
            life_begins[i] = lost or over[i]
            lives[i] = info["lives"][i]
            over[i] = game_over[i] or cut[i]
            if over[i]:
                finished.append(score[i])
    assert len(kinds) == 6  # all there are: a game is only over where a life is lost
    assert finished == env.scores == games.take_finished() and len(finished) > 200
    assert games.take_finished() == []


@pytest.mark.slow
def test_the_seed_decides_everything(monkeypatch, tmp_path):
    """The same seed twice, and another; without a path, nothing is written."""
    monkeypatch.chdir(tmp_path)
    histories = []
    weights = []
    for seed in (1, 1, 2):
        config = Config(seed=seed, steps=320, num_envs=4, max_frames=120)
        agent, progress = breakout.train(config)
        histories.append((progress.history, progress.scores))
        weights.append(torch.cat([p.flatten() for p in agent.network.parameters()]))
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    assert histories[0] == histories[1] != histories[2] and len(progress.scores) == 8
    assert os.listdir() == []


class Begun(Exception):
    """Stops a run where its games begin."""


def begun_with(monkeypatch, run):
    """Return what a run passes to Games: num_envs, seed, max_frames, fire."""

    def begin(num_envs, seed, max_frames, fire):
        raise Begun(num_envs, seed, max_frames, fire)

    with monkeypatch.context() as patch:
        patch.setattr(breakout, "Games", begin)
        with pytest.raises(Begun) as stopped:
            run()
    return stopped.value.args


@pytest.mark.parametrize("fire", [True, False])
def test_settings_reach_the_games(fire, monkeypatch):
    config = Config(num_envs=3, games=2, max_frames=444, fire=fire)
    num_envs, _, max_frames, fired = begun_with(monkeypatch, lambda: breakout.train(config))
    assert (num_envs, max_frames, fired) == (3, 444, fire)
    num_envs, _, max_frames, fired = begun_with(monkeypatch, lambda: breakout.play(None, config))
    assert (num_envs, max_frames, fired) == (2, 444, fire)


def test_the_games_of_play_are_none_that_a_training_begins_with(monkeypatch):
    monkeypatch.setattr(breakout, "make_env", lambda num_envs, _: Scripted(num_envs, RNG))
    seeds = []
    for number in range(5):
        config = Config(seed=number)
        for run in (lambda c=config: breakout.train(c), lambda c=config: breakout.play(None, c)):
            _, seed, *_ = begun_with(monkeypatch, run)
            seeds += Games(10, seed, 18_000, True).seeds.tolist()
    assert len(set(seeds)) == len(seeds) == 100


def test_the_learning_rate_falls_to_zero(monkeypatch, no_learning):
    """Also where a training goes on: it depends on the steps alone."""
    rates = []

    def learn(self, *_):
        rates.append(self.optimizer.param_groups[0]["lr"])
        return 0.0

    monkeypatch.setattr(Agent, "learn", learn)
    config = Config(steps=800, num_envs=4, learning_rate=0.5)
    breakout.train(config)
    breakout.train(config, Agent(config), Progress(env_steps=600))
    expected = 0.5 * (1 - np.arange(40) / 40)
    np.testing.assert_allclose(rates, [*expected, *expected[30:]], rtol=1e-9)


def test_a_training_feeds_and_reports_what_it_should(monkeypatch):
    """Rollouts of num_steps, the state after them, a line every 100 updates, the last 100 games."""
    states = []
    rollouts = []
    sample = Agent.sample

    def spied(self, state):
        states.append(state)
        return sample(self, state)

    def learn(self, rollout, next_state):
        rollouts.append((rollout, next_state, len(states)))
        return float(len(rollouts) ** 2)

    def make_env(num_envs, max_frames):
        return Scripted(num_envs, np.random.default_rng(0))

    def forward(self, state):
        return state[:, 0, :4, 0] / 255, state[:, 0, 0, 0] / 1

    monkeypatch.setattr(breakout, "make_env", make_env)
    monkeypatch.setattr(breakout.ActorCritic, "forward", forward)
    monkeypatch.setattr(Agent, "sample", spied)
    monkeypatch.setattr(Agent, "learn", learn)
    _, progress = breakout.train(Config(steps=2800, num_envs=4, num_steps=3))
    assert len(rollouts) == 234 and progress.env_steps == 234 * 12  # 2808, the first past 2800
    for rollout, next_state, seen in rollouts[:-1]:
        assert all(column.shape == (3, 4) for column in rollout)
        assert seen % 3 == 0 and np.array_equal(next_state, states[seen])
        assert np.array_equal(rollout.value, np.array(states[seen - 3 : seen])[:, :, 0, 0, 0])
    squares = np.arange(1, 235) ** 2.0
    games = []
    for row, start, end in zip(progress.history, (0, 100, 200), (100, 200, 234), strict=True):
        games.append(row.games)
        last = progress.scores[: row.games][-100:]
        assert row.env_steps == 12 * end and row.loss == pytest.approx(squares[start:end].mean())
        assert (row.mean, row.min, row.max) == (pytest.approx(np.mean(last)), min(last), max(last))
    assert 100 < games[0] < games[1] < games[2] == len(progress.scores)


def test_defaults_and_the_optimizer():
    assert vars(Config()) == DEFAULTS
    optimizer = Agent(Config(learning_rate=0.02, rmsprop_alpha=0.8)).optimizer
    assert type(optimizer) is torch.optim.RMSprop and len(optimizer.param_groups) == 1
    expected = {"lr": 0.02, "alpha": 0.8, "eps": 1e-5, "momentum": 0, "centered": False}
    expected["weight_decay"] = 0
    assert {name: optimizer.defaults[name] for name in expected} == expected


def test_an_update_is_rmsprops():
    """Each weight moves by the rate, its gradient, and the root of a mean of its square."""
    agent = Agent(Config(bfloat16=False))
    rng = np.random.default_rng(0)
    states = rng.integers(256, size=(3, 2, 4, 84, 84), dtype=np.uint8)
    weights = list(agent.network.parameters())
    square = [0.0] * 12
    no = torch.zeros(2, 2, dtype=bool)
    for rate in (1e-3, 5e-4):
        agent.optimizer.param_groups[0]["lr"] = rate
        before = [weight.detach().clone() for weight in weights]
        _, *outputs = zip(*(agent.sample(state) for state in states[:2]), strict=True)
        outputs = [torch.stack(column) for column in outputs]
        agent.learn(breakout.Rollout(*outputs, torch.ones(2, 2), no, no, ~no), states[2])
        for i, weight in enumerate(weights):
            square[i] = 0.9 * square[i] + 0.1 * weight.grad**2
            moved = rate * weight.grad / (square[i].sqrt() + 1e-5)
            torch.testing.assert_close(before[i] - weight.detach(), moved, rtol=1e-2, atol=1e-7)


# Weights


def test_the_network_is_the_books():
    network = breakout.ActorCritic(4)
    weights = network.state_dict()
    assert list(weights) == [f"{layer}.{kind}" for layer in LAYERS for kind in ("weight", "bias")]
    shapes = [tuple(weights[f"{layer}.weight"].shape) for layer in LAYERS]
    convolutions = [(32, 4, 8, 8), (64, 32, 4, 4), (64, 64, 3, 3)]
    assert shapes == [*convolutions, (512, 3136), (4, 512), (1, 512)]
    assert not any(weights[f"{layer}.bias"].any() for layer in LAYERS)
    for layer, gain in zip(LAYERS, [2**0.5] * 4 + [0.01, 1], strict=True):
        weight = weights[f"{layer}.weight"].flatten(1)
        expected = gain**2 * torch.eye(len(weight))
        torch.testing.assert_close(weight @ weight.T, expected, rtol=1e-3, atol=1e-4)
    state = torch.randint(256, (3, 4, 84, 84), dtype=torch.uint8)
    logits, value = network(state)
    assert (logits.shape, value.shape) == ((3, 4), (3,))
    hidden = (state.double() / 255).float()
    for layer in (0, 2, 4):
        hidden = network.conv[layer](hidden).relu()
    flat = hidden.reshape(3, -1)  # as in the book: channel, row, column
    hidden = network.conv[7](flat).relu()
    torch.testing.assert_close(logits, network.actor(hidden), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("half, new", [(True, True), (False, True), (False, False)])
def test_weights_of_either_precision_and_format_load(half, new, tmp_path):
    """Ours, in half precision, and a file of the book's time, in the old format."""
    weights = Agent(Config()).network.state_dict()
    weights = {k: v.half() if half else v.contiguous() for k, v in weights.items()}
    torch.save(weights, tmp_path / "w.pth", _use_new_zipfile_serialization=new)
    agent = Agent(Config(seed=1))
    breakout.load_weights(agent, tmp_path / "w.pth")
    for name, weight in agent.network.state_dict().items():
        assert weight.dtype == torch.float32 and torch.equal(weight, weights[name].float())


DEVICES = [  # GPUs of Nvidia; whether there is one of Apple; processes, the number of this one
    (1, False, 1, 0, "cuda:0"),
    (4, True, 4, 3, "cuda:3"),
    (2, False, 4, 1, "cpu"),  # some would have none
    (0, True, 1, 0, "mps"),
    (0, True, 2, 1, "cpu"),  # gradients can't be averaged there
    (0, False, 1, 0, "cpu"),
]


@pytest.mark.parametrize("gpus, apple, processes, rank, device", DEVICES)
def test_each_process_has_a_gpu_or_none_has(gpus, apple, processes, rank, device, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: apple)
    monkeypatch.setattr(breakout, "TORCHRUN", processes > 1)
    if processes > 1:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
        monkeypatch.setenv("LOCAL_RANK", str(rank))
    assert str(breakout.best_device()) == device


def test_processes_without_a_gpu_use_gloo_whatever_gpus_there_are(monkeypatch):
    """Left to itself, PyTorch takes what suits a GPU, which can't send the weights of a CPU."""
    backends = []
    monkeypatch.setattr(breakout.dist, "init_process_group", backends.append)
    monkeypatch.setattr(breakout.dist, "broadcast", lambda *_: None)
    breakout.join_processes(torch.nn.Linear(1, 1))
    assert backends == ["gloo"]


def test_the_weights_of_a_checkpoint_load(tmp_path):
    saved = Agent(Config())
    breakout.save_checkpoint(tmp_path / "checkpoint.pth", saved, Progress())
    agent = Agent(Config(seed=1))
    breakout.load_weights(agent, tmp_path / "checkpoint.pth")
    weights = saved.network.state_dict()
    torch.testing.assert_close(agent.network.state_dict(), weights, rtol=0, atol=0)


def test_scores_do_not_stand_beside_the_animation_of_other_games(monkeypatch, tmp_path):
    (tmp_path / "play.gif").write_text("of before")
    monkeypatch.setattr(breakout, "play", lambda agent, config: ({1: 3}, []))
    breakout.main(["play", "--output-dir", str(tmp_path), "--no-media"])
    assert os.listdir(tmp_path) == ["scores.csv"]


@pytest.mark.parametrize("there, wanted", [(True, True), (True, False), (False, True)])
def test_bfloat16_is_used_where_the_cpu_has_it_unless_turned_off(
    there, wanted, monkeypatch, tmp_path
):
    (tmp_path / "cpuinfo").write_text("flags: fpu amx_bf16" if there else "flags: fpu")
    monkeypatch.setattr(breakout, "Path", lambda path: tmp_path / path.replace("/proc/", ""))
    agent = Agent(Config(bfloat16=wanted))
    inside = []
    agent.network.conv[7].register_forward_hook(lambda _, __, hidden: inside.append(hidden.dtype))
    _, *outputs = agent.sample(np.zeros((2, 4, 84, 84), np.uint8))
    assert inside == [torch.bfloat16 if there and wanted else torch.float32]
    assert all(column.dtype == torch.float32 for column in outputs)


# Training, stopping and going on


@pytest.mark.slow
def test_a_training_writes_its_files_and_is_not_begun_anew(run, refuse, tmp_path, no_training):
    settings = {"steps": 1200, "num_envs": 8, "games": 2, "max_frames": 200}
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    status, out, err = run("a2c_breakout", *flags)
    folder = tmp_path / "runs" / "a2c_breakout"
    assert status == 0 and sorted(os.listdir(folder)) == TRAINED
    assert "mean score" in err and "nan" not in out + err
    header, row = read_csv(folder / "history.csv")  # 30 updates
    assert header == ["env_steps", "games", "mean", "min", "max", "loss"]
    steps, games, mean, low, high, loss = map(float, row)
    assert steps == 1200 and games >= 16 and np.isfinite(loss)
    assert 0 <= low <= mean <= high < 100
    assert f"1,200 steps, {games:.0f} games, " in out
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    expected = {"script": "a2c_breakout", "config": DEFAULTS | settings, "env_steps": 1200}
    assert summary == expected | {"train_seconds": summary["train_seconds"]}
    assert 0 < summary["train_seconds"] < 100
    header, *rows = read_csv(folder / "scores.csv")
    assert header == ["game", "score"] and [game for game, _ in rows] == ["1", "2"]
    scores = [int(score) for _, score in rows]
    assert f"2 games: mean {np.mean(scores):.1f}, {min(scores)} to {max(scores)}." in out
    for game, score in rows:
        assert f"{game:>4}  {score:>5}\n" in out
    assert out.endswith("Results are in runs/a2c_breakout.\n")
    weights = torch.load(folder / "weights.pth", weights_only=True)
    assert os.path.getsize(folder / "weights.pth") < 4e6
    saved = torch.load(folder / "checkpoint.pth", weights_only=True)
    for name, weight in saved["network"].items():
        assert torch.equal(weights[name], weight.half()) and weight.isfinite().all()
    with Image.open(folder / "play.gif") as gif:
        assert gif.size == (320, 420) and gif.n_frames > 40 and gif.info["duration"] == 40
    refuse(flags, "checkpoint.pth", "--resume", "--output-dir")


@pytest.mark.parametrize("flags", [[], ["--no-media"]])
def test_no_training_begins_beside_one_that_just_began(flags, monkeypatch, refuse, tmp_path):
    """Its checkpoint is there before its first update. An error ends only this training."""

    def learn(*_):
        raise RuntimeError("an update")

    monkeypatch.setattr(Agent, "learn", learn)
    with pytest.raises(RuntimeError, match="an update"):
        breakout.main([*SHORT, *flags])
    assert steps_in(tmp_path / "runs" / "a2c_breakout" / "checkpoint.pth") == 0
    refuse([*SHORT, *flags], "checkpoint.pth", "--resume")
    refuse(["--seed", 3], "checkpoint.pth", "--resume")


def test_checkpoints_come_every_so_many_steps(monkeypatch, tmp_path, no_learning):
    """One at once, one at the end, and one each time that these steps are done."""
    written = []

    def save(path, agent, progress):
        written.append(progress.env_steps)

    monkeypatch.setattr(breakout, "save_checkpoint", save)
    config = Config(steps=500, num_envs=4, checkpoint_every=130)
    breakout.train(config, checkpoint=tmp_path / "checkpoint.pth")
    assert written == [0, 140, 260, 400, 500]
    breakout.train(config, Agent(config), Progress(env_steps=300), tmp_path / "checkpoint.pth")
    assert written[5:] == [400, 500]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_saves_and_is_resumed_with_all_settings(
    number, start, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    settings = {"num_envs": 4, "learning_rate": 0.002, "gamma": 0.9, "games": 1, "max_frames": 200}
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    process = start("a2c_breakout", *flags, "--no-fire", "--output-dir", "out")
    out = tmp_path / "out"
    wait_for_steps(process, 100)
    process.send_signal(number)
    text, err = process.communicate(timeout=600)
    assert process.returncode == 0 and "Traceback" not in err
    assert "game  score" not in text
    assert 'Interrupted. Go on with --resume --output-dir "out".' in text
    assert sorted(os.listdir(out)) == stopped(out)
    done = json.loads((out / "summary.json").read_text(encoding="utf-8"))["env_steps"]
    assert done >= 100 and steps_in(out / "checkpoint.pth") == done
    assert len(read_csv(out / "history.csv")) == 2 + done // 2000  # with the updates left over
    seen = []
    learn = Agent.learn

    def spied(self, rollout, state):
        seen.append((rollout.value.shape, self.config.gamma))
        return learn(self, rollout, state)

    monkeypatch.setattr(Agent, "learn", spied)
    agent = breakout.main(["--resume", "--output-dir", "out", f"--steps={done + 200}"])
    assert seen == [((5, 4), 0.9)] * 10
    assert vars(agent.config) == DEFAULTS | settings | {"fire": False, "steps": done + 200}
    saved = torch.load(out / "checkpoint.pth", weights_only=True)
    assert saved["config"] == vars(agent.config)
    assert saved["progress"]["env_steps"] == done + 200
    assert sorted(os.listdir(out)) == TRAINED


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["train", "play"])
def test_ctrl_c_in_play_keeps_the_games_that_are_over(mode, monkeypatch, capsys, tmp_path):
    """And all that was trained."""
    step = Games.step
    playing = []

    def interrupted(self, action):
        if len(self.seeds) == 6 and self.finished:  # no training: it has 4 games at once
            playing.append(self.finished.copy())
            signal.raise_signal(signal.SIGINT)
        return step(self, action)

    monkeypatch.setattr(Games, "step", interrupted)
    torch.save(Agent(Config()).network.state_dict(), tmp_path / "unlearned.pth")
    flags = ["--games=6", "--max-frames=18000"]
    if mode == "play":
        flags += ["--weights", str(tmp_path / "unlearned.pth")]
    breakout.main([mode, *SHORT, *flags, "--output-dir", str(tmp_path / "out")])
    out = capsys.readouterr().out
    (finished,) = playing
    header, *rows = read_csv(tmp_path / "out" / "scores.csv")
    assert header == ["game", "score"] and 1 <= len(rows) < 6
    assert [int(score) for _, score in rows] == finished
    for game, score in rows:
        assert f"{game:>4}  {score:>5}\n" in out
    assert f"Interrupted.\n{len(rows)} games: mean " in out
    trained = stopped(tmp_path / "out") if mode == "train" else []
    assert sorted(os.listdir(tmp_path / "out")) == sorted([*trained, "play.gif", "scores.csv"])


def test_no_games_of_an_earlier_agent_stay_beside_new_weights(tmp_path):
    for name in ("scores.csv", "play.gif"):
        (tmp_path / name).write_text("of an earlier agent")
    breakout.save_training(tmp_path, Agent(Config()), Progress())
    assert sorted(os.listdir(tmp_path)) == ["history.csv", "summary.json", "weights.pth"]


def test_ctrl_c_before_any_game_is_over(monkeypatch, capsys, tmp_path):
    """No mean of nothing, and what is there stays."""

    def interrupted(self, action):
        raise KeyboardInterrupt

    for name in ("scores.csv", "play.gif"):
        (tmp_path / name).write_text("of before")
    monkeypatch.setattr(Games, "step", interrupted)
    breakout.main(["play", "--output-dir", str(tmp_path)])
    assert "mean" not in capsys.readouterr().out
    assert [path.read_text() for path in tmp_path.iterdir()] == ["of before"] * 2


@pytest.mark.slow
def test_an_interrupted_training_goes_on_where_it_was(monkeypatch, tmp_path):
    """With what it learned up to the last whole update, which the checkpoint has too."""
    step = Games.step
    steps = []
    path = tmp_path / "checkpoint.pth"

    def interrupted(self, action):
        steps.append(action)
        if len(steps) == 108:
            raise KeyboardInterrupt
        return step(self, action)

    monkeypatch.setattr(Games, "step", interrupted)
    agent, progress = breakout.train(Config(steps=500, num_envs=4), checkpoint=path)
    assert progress.env_steps == steps_in(path) == 420
    assert torch.load(path, weights_only=True)["progress"]["history"] == progress.history
    same, progress = breakout.train(agent.config, agent, progress)
    assert same is agent and progress.env_steps == 500
    assert [row.env_steps for row in progress.history] == [420, 500] and len(steps) == 108 + 20


@pytest.mark.slow
def test_a_checkpoint_restores_exactly(tmp_path):
    """Weights, optimizer, counts, history, scores and generator are as they were."""
    config = Config(steps=480, num_envs=8, max_frames=200)
    path = tmp_path / "checkpoint.pth"
    agent, progress = breakout.train(config, checkpoint=path)
    generator = torch.get_rng_state()
    same_config, restored, same = breakout.load_checkpoint(path, {})
    assert torch.equal(torch.get_rng_state(), generator) and len(progress.scores) > 1
    assert same_config == restored.config == config and same == progress
    assert type(same.history[0]) is breakout.Update and same.seconds > 0
    for part in ("network", "optimizer"):
        a, b = (getattr(x, part).state_dict() for x in (agent, restored))
        a, b = (torch.utils._pytree.tree_leaves(x) for x in (a, b))
        a, b = ([torch.as_tensor(x) for x in leaves if x is not None] for leaves in (a, b))
        assert len(a) == len(b) > 8 and all(map(torch.equal, a, b))
    history = list(progress.history)
    assert breakout.train(config, restored, same)[1].history == history  # nothing is left to do


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), RuntimeError("full"), "folder"])
def test_a_failed_checkpoint_is_one_line_and_tried_again(
    error, monkeypatch, capsys, tmp_path, no_learning
):
    path = tmp_path / "checkpoint.pth"
    save = torch.save
    tries = []

    def failing(content, part):
        tries.append(content)
        part.write_bytes(b"half")
        if error == "folder" and len(tries) == 2:
            path.rmdir()
        elif error != "folder" and len(tries) == 1:
            raise error
        save(content, part)

    if error == "folder":
        path.mkdir()
    monkeypatch.setattr(torch, "save", failing)
    breakout.train(Config(steps=400, num_envs=4, checkpoint_every=200), checkpoint=path)
    lines = [line for line in capsys.readouterr().err.splitlines() if "Can't write" in line]
    assert len(tries) == 3 and len(lines) == 1 and str(path) in lines[0]
    assert os.listdir(tmp_path) == ["checkpoint.pth"] and steps_in(path) == 400


KILLED = """
import os, sys, torch
sys.path.insert(0, sys.argv[1])
import a2c_breakout
save = torch.save
tries = []
def die(content, path):
    tries.append(path)
    if len(tries) == 2:
        path.write_bytes(b"half")
        os.kill(os.getpid(), 9)
    save(content, path)
torch.save = die
a2c_breakout.main(sys.argv[2:])
"""


@pytest.mark.slow
def test_kill_9_while_saving_keeps_the_old_checkpoint(monkeypatch, tmp_path):
    """What is being written has another name until it is whole; the training goes on from it."""
    flags = ["--checkpoint-every=100", "--no-media", "--output-dir", tmp_path / "out"]
    command = [sys.executable, "-c", KILLED, ROOT, *SHORT, *flags]
    assert subprocess.run(command, stderr=subprocess.DEVNULL).returncode == -9
    path = tmp_path / "out" / "checkpoint.pth"
    assert steps_in(path) == 0
    breakout.main(["--resume", "--no-media", "--output-dir", str(tmp_path / "out")])
    assert steps_in(path) == 200
    assert set(os.listdir(tmp_path / "out")) == set(TRAINED) - {"learning_curve.png", "play.gif"}


@pytest.mark.slow
def test_a_finished_training_may_be_resumed(monkeypatch, tmp_path, capsys):
    """With more steps it learns more; with the same, it only plays again."""
    monkeypatch.chdir(tmp_path)
    breakout.main([*SHORT, "--no-media"])
    before = capsys.readouterr().out
    agent = breakout.main(["--resume", "--no-media"])
    assert "\n1 games: mean " in capsys.readouterr().out and "\n1 games: mean " in before
    assert agent.config.steps == steps_in("runs/a2c_breakout/checkpoint.pth") == 200
    breakout.main(["--resume", "--no-media", "--steps=300", "--num-envs=4"])
    assert steps_in("runs/a2c_breakout/checkpoint.pth") == 300


ALONE = """
import os, signal, sys, threading
import gymnasium, torch  # gymnasium sets variables of its own
before = dict(os.environ), signal.getsignal(signal.SIGTERM), torch.get_num_threads()
random = torch.get_rng_state()
import a2c_breakout
assert (dict(os.environ), signal.getsignal(signal.SIGTERM), torch.get_num_threads()) == before
assert torch.equal(torch.get_rng_state(), random)
assert "matplotlib.pyplot" not in sys.modules
agents = []
thread = threading.Thread(target=lambda: agents.append(a2c_breakout.main(sys.argv[1:])))
thread.start()
thread.join()
assert agents[0].config.steps == 200
assert (dict(os.environ), signal.getsignal(signal.SIGTERM)) == before[:2]
"""


@pytest.mark.slow
def test_an_import_and_a_thread_leave_the_world_alone(tmp_path):
    command = [sys.executable, "-W", "error", "-c", ALONE, *SHORT, "--output-dir", tmp_path / "out"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert sorted(os.listdir(tmp_path / "out")) == TRAINED


THREADS = [
    ([], 8, 8, 4),
    ([], 1, 8, 1),  # OMP_NUM_THREADS=1, or torchrun
    ([], 1, 1, 1),
    (["--threads=1"], 8, 8, 1),
    (["--threads=6"], 2, 8, 6),
]


@pytest.mark.parametrize("flags, torchs, cores, expected", THREADS)
def test_torch_computes_on_half_of_the_cores(flags, torchs, cores, expected, monkeypatch, tmp_path):
    chosen = []
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    monkeypatch.setattr(breakout, "MOST_THREADS", torchs)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)  # what an earlier run has set
    monkeypatch.setattr(torch, "set_num_threads", chosen.append)
    for mode in ("train", "play", "random"):
        monkeypatch.setattr(breakout, f"run_{mode}", lambda *_: None)
        breakout.main([mode, *flags, "--output-dir", str(tmp_path)])
    assert chosen == [expected] * 3


# Several processes

WORKER = """
import os, sys
import numpy as np
import torch
import a2c_breakout as breakout
from a2c_breakout import Agent, Config, Rollout

def gradient(columns):
    breakout.RANK = 0  # the same weights everywhere
    agent = Agent(Config(max_grad_norm=1000, bfloat16=False))
    if columns != slice(None):
        for parameter in agent.network.parameters():
            parameter.register_post_accumulate_grad_hook(breakout.average_gradient)
    data = np.load("data.npz")
    agent.optimizer.step = lambda: None
    state = torch.from_numpy(data["state"][:5, columns])
    logits, value = (x.unflatten(0, state.shape[:2]) for x in agent.network(state.flatten(0, 1)))
    names = ("reward", "terminated", "truncated", "valid")
    rest = [torch.from_numpy(data[name][:, columns]) for name in names]
    log_prob = logits.log_softmax(-1)
    entropy = -(log_prob * log_prob.exp()).sum(-1)
    agent.learn(Rollout(log_prob[..., 0], entropy, value, *rest), data["state"][5, columns])
    return torch.cat([p.grad.flatten() for p in agent.network.parameters()])

rank = breakout.RANK
whole = gradient(slice(None))
breakout.RANK = rank
begun = []
updates = []
Games, learn = breakout.Games, Agent.learn

class SpiedGames(Games):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        begun.extend(self.seeds.tolist())

def spied_learn(self, rollout, state):
    updates.append(state.shape[0])
    return learn(self, rollout, state)

train, done = breakout.train, []
def spied_train(*arguments):
    done.append(train(*arguments)[1])
    games = begun.copy(), len(updates)
    done.append(games)

for module_part in ("save_training", "save_checkpoint", "play", "plot"):
    def only_first(*arguments, call=getattr(breakout, module_part), name=module_part):
        assert rank == 0, f"rank {rank}: {name}"
        return call(*arguments)
    setattr(breakout, module_part, only_first)
breakout.Games = SpiedGames
breakout.train = spied_train
Agent.learn = spied_learn
agent = breakout.main(sys.argv[1:])
Agent.learn = learn
progress, (seeds, count) = done
found = {
    "weights": agent.network.state_dict(),
    "env_steps": progress.env_steps,
    "updates": count,
    "seeds": seeds,
    "whole": whole,
    "mean": gradient(slice(4 * rank, 4 * rank + 4)),
}
torch.save(found, f"rank{rank}.pth")
"""


@pytest.fixture
def torchrun(tmp_path):
    """torchrun(script, *arguments): two processes with a script, in an empty folder."""
    running = []

    def torchrun(script, *arguments):
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command += ["--nproc-per-node=2", script, *map(str, arguments)]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen(command, cwd=tmp_path, env=environment, **pipes)
        running.append(process)
        return process

    yield torchrun
    for process in running:
        if process.poll() is None:
            process.terminate()  # the two as well
            process.communicate()


@pytest.mark.slow
def test_two_processes_share_weights_and_the_mean_gradient(torchrun, tmp_path):
    """Of different games. The first alone writes, plays and prints."""
    rng = np.random.default_rng(0)
    shape = (5, 8)
    data = {name: rng.random(shape) < 0.2 for name in ("terminated", "truncated")}
    data["state"] = rng.integers(256, size=(6, 8, 4, 84, 84), dtype=np.uint8)
    data["valid"] = np.ones(shape, bool)
    np.savez(tmp_path / "data.npz", **data, reward=rng.normal(size=shape).astype(np.float32))
    (tmp_path / "worker.py").write_text(WORKER)
    process = torchrun("worker.py", *SHORT, "--steps=1010", "--output-dir=out")
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    assert re.findall(r"^[\d,]+ steps", out, re.M) == ["1,020 steps"]
    assert out.count("Results are in") == out.count("game  score") == 1
    a, b = (torch.load(tmp_path / f"rank{rank}.pth", weights_only=True) for rank in (0, 1))
    assert all(torch.equal(a["weights"][name], b["weights"][name]) for name in a["weights"])
    assert a["env_steps"] == b["env_steps"] == 1020  # 51 updates, of 20 steps
    assert a["updates"] == b["updates"] == 51
    assert len({*a["seeds"][:4], *b["seeds"]}) == 8
    assert steps_in(tmp_path / "out" / "checkpoint.pth") == 1020
    assert sorted(os.listdir(tmp_path / "out")) == TRAINED
    assert torch.equal(a["mean"], b["mean"]) and a["mean"].norm() > 1e-3
    torch.testing.assert_close(a["mean"], a["whole"], rtol=1e-3, atol=1e-6)


@pytest.mark.slow
def test_a_signal_to_torchrun_ends_all_and_leaves_a_checkpoint(torchrun, tmp_path):
    process = torchrun(ROOT / "a2c_breakout.py", "--num-envs=4", "--output-dir=out")
    wait_for_steps(process, 100)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=600)
    assert sorted(os.listdir(tmp_path / "out")) == stopped(tmp_path / "out")
    assert steps_in(tmp_path / "out" / "checkpoint.pth") >= 80


def test_no_two_processes_play_alike(monkeypatch, tmp_path):
    """Each has games and a random stream of its own; and other games when it goes on."""
    drawn = []
    begun = []

    class Spied(Games):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            begun.append(self.seeds[0])

    def sample(agent, state):
        drawn.append(tuple(torch.rand(3).tolist()))
        raise KeyboardInterrupt

    monkeypatch.setattr(breakout, "Games", Spied)
    monkeypatch.setattr(Agent, "sample", sample)
    path = tmp_path / "checkpoint.pth"
    breakout.save_checkpoint(path, Agent(Config(num_envs=1)), Progress(env_steps=500))
    for resumed in (False, True):
        for rank in range(4):
            monkeypatch.setattr(breakout, "RANK", rank)
            start = Config(num_envs=1), None, None
            breakout.train(*(breakout.load_checkpoint(path, {}) if resumed else start))
    assert len(set(drawn[:4])) == len(set(drawn[4:])) == 4
    assert len(set(begun)) == len(begun) == 8


# Playing


@pytest.mark.parametrize("temperature", [0.01, 0.5, 1, 2])
def test_play_samples_by_its_temperature_and_training_does_not(temperature):
    """pi(a | s)^(1 / temperature), as a share; after config.patience steps without a point, pi."""
    agent = Agent(Config(temperature=temperature, patience=7))
    share = torch.tensor([0.1, 0.2, 0.3, 0.4])
    agent.network.forward = lambda state: (share.log().expand(len(state), 4), state[:, 0, 0, 0])
    state = np.zeros((100_000, 4, 1, 1), np.uint8)
    powers = share.double() ** (1 / temperature)
    idle = np.tile([6, 7], len(state))
    mixed = agent.act(np.concatenate([state, state]), idle)
    for actions, expected in (
        (mixed[idle < 7], powers / powers.sum()),
        (mixed[idle == 7], share),  # as in training
        (agent.sample(state)[0], share),
    ):
        shares = np.bincount(actions, minlength=4) / len(actions)
        np.testing.assert_allclose(shares, expected, atol=0.008)  # 5 standard deviations


@pytest.mark.slow
def test_random_shows_the_task(monkeypatch, capsys, tmp_path):
    """Every action is as likely."""
    actions = []
    act = Agent.act

    def spied(self, state, idle):
        action = act(self, state, idle)
        actions.extend(action.tolist())
        return action

    monkeypatch.setattr(Agent, "act", spied)
    monkeypatch.chdir(tmp_path)
    agent = breakout.main(["random", "--games=6", "--seed=3"])
    logits, _ = agent.network(torch.randint(256, (2, 4, 84, 84), dtype=torch.uint8))
    assert not logits.any()  # exactly as likely
    out, err = capsys.readouterr()
    assert err == "" and "(4, 84, 84), uint8" in out
    assert "['NOOP', 'FIRE', 'RIGHT', 'LEFT']" in out
    share = np.bincount(actions, minlength=4) / len(actions)
    assert np.abs(share - 0.25).max() < 4 * (0.1875 / len(actions)) ** 0.5
    folder = tmp_path / "runs" / "a2c_breakout" / "random"
    assert sorted(os.listdir(folder)) == ["play.gif", "scores.csv"]
    scores = [int(score) for _, score in read_csv(folder / "scores.csv")[1:]]
    assert len(scores) == 6 and 0 < np.mean(scores) < 5


@pytest.mark.slow
def test_fire_starts_each_life_and_nothing_else():
    """Also after a reset by time; the policy's action is overruled there, and only there."""
    games = Games(8, 0, 200, True)
    rng = np.random.default_rng(0)
    served = 0
    waiting = 0
    for _ in range(300):
        action = rng.choice([0, 2, 3], 8)
        ended = games.ended
        lives = games.lives
        begins = games.life_begins.copy()
        *_, valid = games.step(action)
        assert np.array_equal(games.action, np.where(begins, 1, action))
        assert np.array_equal(valid, ~(ended | begins))
        assert np.array_equal(games.life_begins, (games.lives != lives) | ended)
        waiting = np.where(games.state[:, -1, 40:74, 5:79].any((1, 2)), 0, waiting + 1)
        assert (waiting < 60).all()  # a ball above the wall can't be seen
        served += (begins & ~ended).sum()
    assert served > 30
    games = Games(8, 0, 1600, False)
    *_, valid = games.step(action)
    assert np.array_equal(games.action, action) and valid.all()


@pytest.mark.slow
def test_a_game_that_does_not_end_is_cut_short():
    """Nobody ever presses FIRE. Time up is no end: it is truncated, not terminated."""
    frames = 400
    games = Games(1, 0, frames, False)
    steps = 0
    truncated = [False]
    while not games.ended[0]:
        _, terminated, truncated, _ = games.step(np.zeros(1, int))
        steps += 1
    assert truncated[0] and not terminated[0] and frames / 4 - 30 <= steps <= frames / 4


@pytest.mark.slow
def test_play_from_python(monkeypatch, tmp_path):
    """Scores of whole games, pictures of the first one; nothing is written."""
    monkeypatch.chdir(tmp_path)
    make_env = breakout.make_env
    screens = []

    class Screen:
        def __init__(self, env):
            self.env = env
            self.points = 0
            self.steps = 0

        def reset(self, seed):
            return self.env.reset(seed=seed)

        def step(self, action):
            result = self.env.step(action)
            self.points += int(result[1][0])
            self.steps += 1
            self.over = bool(result[2][0])
            return result

    def spied(num_envs, max_frames, colour=False):
        env = make_env(num_envs, max_frames, colour)
        if colour:
            screens.append(env := Screen(env))
        return env

    monkeypatch.setattr(breakout, "make_env", spied)
    agent = Agent(Config())
    scores, pictures = breakout.play(agent, Config())
    assert sorted(scores) == list(range(1, 11)) and max(scores.values()) > 0
    assert {type(x) for item in scores.items() for x in item} == {int}
    (screen,) = screens
    assert screen.over and screen.points == scores[1]
    assert len(pictures) == screen.steps and pictures[0].size == (160, 210)
    # The same seed, the same games
    few = [breakout.play(agent, Config(games=2, seed=seed))[0] for seed in (0, 0, 1)]
    assert few[0] == few[1] != few[2]
    assert os.listdir() == []


def test_no_media_writes_no_pictures(tmp_path):
    arguments = ["play", "--games=2", "--max-frames=200", "--no-media"]
    breakout.main([*arguments, "--output-dir", str(tmp_path)])
    assert os.listdir(tmp_path) == ["scores.csv"]


@pytest.mark.slow
def test_the_shipped_agent_plays_out_of_the_box(run, tmp_path):
    """A third of the usual five minutes brings 148 to 372 points (12 games); chance has about 1."""
    limits = ("--games", 4, "--max-frames", 6000)
    status, out, err = run("a2c_breakout", "play", *limits, "--no-media")
    assert (status, err) == (0, "") and os.path.getsize(SHIPPED) < 4e6
    mean = float(re.search(r"4 games: mean ([\d.]+)", out)[1])
    folder = tmp_path / "runs" / "a2c_breakout" / "play"
    assert mean > 120 and os.listdir(folder) == ["scores.csv"]
    scores = [int(score) for _, score in read_csv(folder / "scores.csv")[1:]]
    assert len(scores) == 4 and np.mean(scores) == pytest.approx(mean, abs=0.1)


# Bad input


def script_at(path):
    """Import the script of another path."""
    spec = importlib.util.spec_from_file_location("script_elsewhere", path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


def test_a_link_to_the_script_finds_its_weights(monkeypatch, capsys, tmp_path):
    (tmp_path / "link.py").symlink_to(ROOT / "a2c_breakout.py")
    script = script_at(tmp_path / "link.py")
    flags = ["--games=1", "--max-frames=200", "--no-media"]
    agent = script.main(["play", *flags, "--output-dir", str(tmp_path)])
    shipped = torch.load(SHIPPED, weights_only=True)
    assert torch.equal(agent.network.actor.weight, shipped["actor.weight"].float())


def test_a_script_without_its_weights_is_one_line(refuse, tmp_path):
    shutil.copy(ROOT / "a2c_breakout.py", tmp_path)
    script = script_at(tmp_path / "a2c_breakout.py")
    missing = tmp_path / "weights" / "a2c_breakout.pth"
    refuse(["play", "--output-dir", "."], f"can't read {missing}: No such file", script=script)


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
    for name in [*names, "nowhere", "missing", "other_game"]:
        refuse(["play", "--output-dir", ".", "--weights", f"{name}.pth"], f"{name}.pth")


def test_a_fault_of_the_agent_is_not_called_a_damaged_file(monkeypatch, tmp_path):
    def agent(config):
        raise RuntimeError("out of memory")

    breakout.save_checkpoint(tmp_path / "checkpoint.pth", Agent(Config()), Progress())
    monkeypatch.setattr(breakout, "Agent", agent)
    with pytest.raises(RuntimeError, match="out of memory"):
        breakout.load_checkpoint(tmp_path / "checkpoint.pth", {})


def test_bad_checkpoints_and_other_settings_are_one_line(
    refuse, tmp_path, no_learning, monkeypatch
):
    path = tmp_path / "checkpoint.pth"
    resume = ["--resume", "--output-dir", "."]
    refuse(resume, "checkpoint.pth", "No such file")
    breakout.train(Config(steps=100, num_envs=4), checkpoint=path)
    monkeypatch.setattr(breakout, "train", lambda *_: pytest.fail("trained"))
    good = torch.load(path, weights_only=True)
    only = "only steps may change"
    refuse([*resume, "--gamma", 0.5], "gamma is 0.99", "not 0.5", only)
    refuse([*resume, "--num-envs", 4, "--seed", 1], "seed is 0", only)
    refuse([*resume, "--games", 3, "--steps", 500], "games is 10", only)
    refuse([*resume, "--no-fire"], "fire is True", "not False", only)
    refuse([*resume, "--steps", 0], "steps must be")
    refuse([*resume, "--steps", 99], "steps must be at least the 100 already done, not 99")
    for name in [*foreign_files(tmp_path, good), "no_history"]:
        path.unlink()
        if name == "no_history":
            torch.save({k: v for k, v in good.items() if k != "progress"}, path)
        else:
            (tmp_path / f"{name}.pth").rename(path)
        refuse(resume, "checkpoint.pth")
        if path.is_dir():
            path.rmdir()
            path.touch()


BAD = [
    (["watch"], "'watch'"),
    (["--games", "0"], "games must be a whole number from 1 to 1000, not 0"),
    (["play", "--games", "100000"], "games"),
    (["--num-envs", "0"], "num_envs"),
    (["--num-envs", "1000000"], "num_envs"),
    (["--steps", "many"], "'many'"),
    (["--steps", "1e6"], "'1e6'"),
    (["--gamma", "1.5"], "gamma must be from 0 to 1, not 1.5"),
    (["--gamma", "nan"], "gamma"),
    (["--learning-rate", "-1"], "learning_rate"),
    (["--value-coef", "inf"], "value_coef"),
    (["--max-frames", "0"], "max_frames"),
    (["--checkpoint-every", "0"], "checkpoint_every"),
    (["play", "--temperature", "0"], "temperature must be from 0.01"),
    (["--fire", "0"], "0"),
    (["--seed", str(2**32)], "seed"),
    (["--threads", "some"], "'some'"),
    (["--threads", "-1"], "threads must be from 0 to 256, not -1"),
    (["play", "--threads", "257"], "threads must be from 0 to 256, not 257"),
    (["--weights", "w.pth"], "--weights is for play, not train"),
    (["random", "--weights", "w.pth"], "--weights is for play, not random"),
    (["--step=3"], "--step"),
    (["--output-dir", "file"], "file"),
    (["random", "--output-dir", "file/below"], "below"),
    (["play", "--resume"], "--resume is for train, not play"),
]


@pytest.mark.parametrize("arguments, named", BAD)
def test_bad_input_is_one_line(arguments, named, refuse, tmp_path, no_training):
    (tmp_path / "file").write_text("kept")
    refuse(arguments, named)


WRONG = [("seed", "3"), ("num_envs", 2.5), ("gamma", None), ("learning_rate", float("nan"))]


@pytest.mark.parametrize("name, value", WRONG)
def test_config_refuses_nonsense_and_takes_numbers_of_any_kind(name, value):
    with pytest.raises(ValueError, match=f"^{name} must be .*from [01]"):
        Config(**{name: value})
    config = Config(gamma=1, seed=np.int64(3), fire=0, learning_rate=np.float32(0.5))
    assert (config.gamma, config.seed, config.fire, config.learning_rate) == (1, 3, False, 0.5)
    kinds = [type(x) for x in (config.gamma, config.seed, config.fire, config.learning_rate)]
    assert kinds == [float, int, bool, float]


def test_help_says_what_it_is_and_every_field_is_a_flag(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as end:
        breakout.main(["--help"])
    out, err = capsys.readouterr()
    assert (end.value.code, err) == (0, "") and max(map(len, out.splitlines())) <= 80
    text = " ".join(out.split())
    start = "A2C on Breakout. Usage: python a2c_breakout.py [train | play | random] [--seed 3]"
    assert text.startswith(start)
    for name, field in Config.__dataclass_fields__.items():
        flag = f"--{name.replace('_', '-')}"
        form = f"{flag}, --no-{flag[2:]}" if field.type is bool else f"{flag} X"
        reason = " ".join(field.metadata["reason"].split())
        assert f"{form} {reason} ({field.default})" in text
    for flag in ("--output-dir DIR", "--no-media", "--resume", "--weights FILE", "--threads X"):
        assert flag in text


def test_every_flag_sets_its_field():
    """Each to a value that is no other's; a setting that was not given is not there."""
    values = {}
    flags = ["play", "--no-media", "--output-dir=a/b", "--weights=w.pth", "--threads=3"]
    for i, (name, field) in enumerate(Config.__dataclass_fields__.items(), 110):
        flag = name.replace("_", "-")
        if field.type is bool:
            values[name] = False
            flags.append(f"--no-{flag}")
        else:
            values[name] = i if field.type is int else i / 1000
            flags.append(f"--{flag}={values[name]}")
    given, options = breakout.parse(flags)
    assert given == values and vars(Config(**given)) == values
    assert (options.mode, options.no_media, options.threads) == ("play", True, 3)
    assert (options.output_dir, options.weights) == (Path("a/b"), Path("w.pth"))
    assert breakout.parse(["--fire", "--seed=0"])[0] == {"fire": True, "seed": 0}
    given, options = breakout.parse(["play"])
    assert given == {} and options.weights == SHIPPED
