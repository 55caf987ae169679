"""Breakout: preparations, lives, weights, checkpoints, several processes, bad input, and the agent that is shipped."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time

import ale_py
import numpy as np
import pytest
import torch
from ale_py import roms
from conftest import ROOT
from PIL import Image

import a2c_breakout as breakout

SHIPPED = ROOT / "weights" / "a2c_breakout.pth"
SHIPPED_SCORE = 250  # what the mean of four games must be above
BOOK_KEYS = [f"{layer}.{kind}" for layer in ("conv.0", "conv.2", "conv.4", "conv.7") for kind in ("weight", "bias")]
BOOK_KEYS += [f"{layer}.{kind}" for layer in ("actor", "critic") for kind in ("weight", "bias")]
SHORT = ["--steps", 2400, "--num-envs", 8, "--games", 2]
INTERRUPTED = ["checkpoint.pth", "history.csv", "learning_curve.png", "summary.json", "weights.pth"]
TRAINED = sorted([*INTERRUPTED, "play.gif", "scores.csv"])


def checkpoint(folder):
    return torch.load(folder / "checkpoint.pth", weights_only=True)


# Preparations


def test_the_preparations_against_the_bare_emulator():
    """No-ops, four frames an action, the maximum of the last two, no sticky actions, grey 84 x 84, four in a state."""
    env, colour = breakout.make_env(8), breakout.make_env(8, colour=True)
    assert env.single_observation_space.shape == (4, 84, 84) and env.single_action_space.n == 4
    state, info = env.reset(seed=np.arange(8))
    picture, _ = colour.reset(seed=np.arange(8))
    no_ops = info["frame_number"]
    assert len(set(no_ops)) > 3 and max(no_ops) <= 30
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
        assert np.array_equal(picture[0, 0], expected) and total == reward[0] and np.array_equal(reward, same)
        pooled += not np.array_equal(expected, frames[3][0])
        grey = Image.fromarray(np.maximum(frames[2][1], frames[3][1])).resize((84, 84), Image.Resampling.BOX)
        # Scaled in another way, so that edges differ
        assert np.corrcoef(np.ravel(grey), state[0, -1].ravel())[0, 1] > 0.98
        assert np.array_equal(state[:, :-1], last[:, 1:])
    assert pooled > 10


def test_a_lost_life_ends_the_return_and_keeps_the_wall(monkeypatch):
    """In training with untrained actions: where the lives fall, and only there or at a game's end, it is terminated."""
    seen, made = [], []
    insert, make_env = breakout.RolloutStorage.insert, breakout.make_env

    def spied_insert(self, *step):
        seen.append([np.array(column) for column in step[3:]])
        insert(self, *step)

    class Spied:
        def __init__(self, *arguments):
            self.env, self.states, self.lives, self.rewards, self.over = make_env(*arguments), [], [], [], []
            made.append(self)

        def reset(self, seed):
            state, info = self.env.reset(seed=seed)
            self.lives.append(info["lives"])
            return state, info

        def step(self, action):
            result = self.env.step(action)
            self.states.append(result[0][:, -1].copy())
            self.lives.append(result[4]["lives"])
            self.rewards.append(result[1])
            self.over.append(result[2] | result[3])
            return result

    monkeypatch.setattr(breakout.RolloutStorage, "insert", spied_insert)
    monkeypatch.setattr(breakout, "make_env", Spied)
    monkeypatch.setattr(breakout.Agent, "learn", lambda self, _: float(bool(self.storage.take("cpu"))))
    agent, history = breakout.train(breakout.Config(steps=16 * 400, num_envs=16))
    (env,) = made
    reward, terminated, truncated, valid = (np.array(column) for column in zip(*seen, strict=True))
    lives, over, states = np.array(env.lives), np.array(env.over), np.array(env.states)
    lost = lives[1:] < lives[:-1]
    assert np.array_equal(terminated, lost | over) and not truncated.any()
    assert np.array_equal(valid[1:], ~over[:-1]) and valid[0].all() and (~valid).sum() >= 10
    assert np.array_equal(reward, np.array(env.rewards))  # unclipped
    assert agent.games == over.sum() and agent.env_steps == valid.sum() == history[-1].env_steps
    kept = 0
    for t, i in np.argwhere(lost & ~over):
        wall = [states[at, i, 22:37, 5:79] > 0 for at in (t, min(t + 3, len(states) - 1))]
        if lives[t, i] < 5 or not wall[0].all():
            assert wall[1].sum() <= wall[0].sum()
            kept += not wall[0].all()
    assert kept >= 5  # walls with holes, which have them still after the life


@pytest.mark.parametrize("clip, rewards", [(0, {0.0, 7.0}), (1, {0.0, 1.0})])
def test_scores_are_of_whole_games_in_points(clip, rewards, monkeypatch):
    """Clipped rewards are for learning; what is reported are the game's own points. Here every brick is worth 7."""
    learned, running, expected = [], np.zeros(8), []
    insert, step = breakout.RolloutStorage.insert, breakout.AtariVectorEnv.step

    def spied_insert(self, *columns):
        learned.extend(columns[3])
        insert(self, *columns)

    def sevenfold(self, action):
        state, reward, terminated, *rest = step(self, action)
        for i in range(8):
            running[i] += 7 * reward[i]
            if terminated[i]:
                expected.append(running[i])
                running[i] = 0
        return state, 7 * reward, terminated, *rest

    monkeypatch.setattr(breakout.Agent, "learn", lambda self, _: float(bool(self.storage.take("cpu"))))
    monkeypatch.setattr(breakout.RolloutStorage, "insert", spied_insert)
    monkeypatch.setattr(breakout.AtariVectorEnv, "step", sevenfold)
    agent, _ = breakout.train(breakout.Config(steps=4000, num_envs=8, clip_rewards=clip))
    assert set(learned) == rewards
    assert list(agent.scores) == expected and agent.games == len(expected) > 5 and max(expected) >= 7


def test_the_seed_decides_everything():
    """The same seed twice, and another: the same weights to the last bit, or others."""
    config = {"steps": 1200, "num_envs": 8}
    a, b, c = (breakout.train(breakout.Config(seed=seed, **config))[0] for seed in (1, 1, 2))
    weights = [torch.cat([p.flatten() for p in agent.network.parameters()]) for agent in (a, b, c)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    assert a.scores == b.scores != c.scores and a.games > 0


def test_the_learning_rate_falls_to_zero(monkeypatch):
    rates = []
    monkeypatch.setattr(
        breakout.Agent,
        "learn",
        lambda self, _: rates.append(self.optimizer.param_groups[0]["lr"]) or float(bool(self.storage.take("cpu"))),
    )
    breakout.train(breakout.Config(steps=1600, num_envs=8, learning_rate=0.5))
    np.testing.assert_allclose(rates[:40], 0.5 * (1 - np.arange(40) / 40), rtol=0.02, atol=0.01)
    assert rates[-1] > 0


# Weights


def test_the_network_is_the_books():
    network = breakout.ActorCritic(4)
    assert list(network.state_dict()) == BOOK_KEYS
    shapes = [tuple(p.shape) for name, p in network.state_dict().items() if name.endswith("weight")]
    assert shapes == [(32, 4, 8, 8), (64, 32, 4, 4), (64, 64, 3, 3), (512, 3136), (4, 512), (1, 512)]
    assert all(not p.any() for name, p in network.state_dict().items() if name.endswith("bias"))
    for name, gain in (("conv.0", 2**0.5), ("conv.7", 2**0.5), ("actor", 0.01), ("critic", 1)):
        weight = network.state_dict()[f"{name}.weight"].flatten(1)
        torch.testing.assert_close(weight @ weight.T, gain**2 * torch.eye(len(weight)), rtol=1e-3, atol=1e-4)
    state = torch.randint(256, (3, 4, 84, 84), dtype=torch.uint8)
    logits, value = network(state)
    assert (logits.shape, value.shape) == ((3, 4), (3,))
    hidden = (state.double() / 255).float()
    for layer in ("0", "2", "4"):
        hidden = network.conv[int(layer)](hidden).relu()
    hidden = network.conv[7](hidden.reshape(3, -1)).relu()  # flattened as the book does: channel, row, column
    torch.testing.assert_close(logits, network.actor(hidden), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("form", [{}, {"_use_new_zipfile_serialization": False}])
@pytest.mark.parametrize("half", [True, False])
def test_weights_round_trip(form, half, tmp_path):
    """Ours, in half precision, and a file of the book's time: the old format, in the book's order of pixels."""
    agent = breakout.Agent(breakout.Config(), 4)
    weights = {k: (v.half() if half else v.contiguous()) for k, v in agent.network.state_dict().items()}
    torch.save(weights, tmp_path / "w.pth", **form)
    loaded = breakout.load_weights(tmp_path / "w.pth", breakout.Config()).network
    for name, weight in loaded.state_dict().items():
        assert weight.dtype == torch.float32 and torch.equal(weight, weights[name].float())


@pytest.mark.parametrize("there, wanted, used", [(True, 1, True), (True, 0, False), (False, 1, False)])
def test_bfloat16_is_used_where_the_cpu_has_it_unless_turned_off(there, wanted, used, monkeypatch):
    monkeypatch.setattr(breakout, "has_bfloat16", lambda: there)
    agent, inside = breakout.Agent(breakout.Config(bfloat16=wanted), 4), []
    agent.network.conv[7].register_forward_hook(lambda _, __, hidden: inside.append(hidden.dtype))
    logits, value, _ = agent.sample(np.zeros((2, 4, 84, 84), np.uint8))
    assert inside == [torch.bfloat16 if used else torch.float32]
    assert logits.dtype == value.dtype == torch.float32


# Training, stopping and going on


def test_a_short_run_writes_what_the_readme_promises(run, tmp_path):
    status, out, err = run("a2c_breakout", *SHORT)
    folder = tmp_path / "runs" / "a2c_breakout"
    assert status == 0 and sorted(os.listdir(folder)) == TRAINED
    assert re.match(r"Training on cpu in (bfloat16|float32), ", out) and "Trained after 2,4" in out
    assert "steps/s" in err and "mean score" in err and "100%" in err
    summary = json.loads((folder / "summary.json").read_text())
    assert 2400 <= summary["env_steps"] < 2440 and summary["games"] > 5 and not summary["interrupted"]
    assert summary["evaluation"]["episodes"] == 2 and f"mean {summary['evaluation']['mean']:.1f}" in out
    history = np.genfromtxt(folder / "history.csv", delimiter=",", names=True, ndmin=1)
    assert history.dtype.names == breakout.Row._fields and history["env_steps"].tolist() == [summary["env_steps"]]
    assert os.path.getsize(folder / "weights.pth") < 4e6
    scores = np.genfromtxt(folder / "scores.csv", delimiter=",", names=True)
    assert scores["game"].tolist() == [1, 2] and (scores["best_life"] <= scores["score"]).all()
    with Image.open(folder / "play.gif") as gif:
        assert gif.size == (160, 210) and gif.n_frames > 50
    status, out, err = run("a2c_breakout", *SHORT)  # does not begin anew over what took long
    assert status == 2 and err.count("\n") == 1 and "--resume" in err and sorted(os.listdir(folder)) == TRAINED
    status, out, err = run("a2c_breakout", *SHORT, "--steps", 3000, "--resume", "--no-media")
    assert status == 0 and checkpoint(folder)["env_steps"] >= 3000
    history = np.genfromtxt(folder / "history.csv", delimiter=",", names=True)
    assert len(history) == 2 and (np.diff(history["env_steps"]) > 0).all() and (np.diff(history["seconds"]) > 0).all()


def wait_for_steps(process, at_least):
    """Reads the progress bar until so many steps are done."""
    text = ""
    while not any(int(n) >= at_least for n in re.findall(r"(\d+)/", text)):
        assert process.poll() is None, text
        text = text[-100:] + process.stderr.read(20)


@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_saves_and_is_resumed(number, status, start, run, tmp_path):
    process = start("a2c_breakout", "--num-envs", 4, "--output-dir", "out")
    wait_for_steps(process, 100)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == status and "Interrupted after" in out and "Traceback" not in err
    assert sorted(os.listdir(tmp_path / "out")) == INTERRUPTED
    saved = checkpoint(tmp_path / "out")
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["interrupted"] and summary["evaluation"] is None and summary["env_steps"] == saved["env_steps"] > 0
    steps = saved["env_steps"] + 100
    arguments = ("--num-envs", 4, "--output-dir", "out", "--steps", steps, "--games", 1)
    status, out, err = run("a2c_breakout", "--resume", *arguments)
    assert status == 0 and steps <= checkpoint(tmp_path / "out")["env_steps"] < steps + 20


def test_resume_goes_on_exactly_from_the_checkpoint(tmp_path):
    """Weights, optimizer, counts, history, scores and generator: what is read back is what was written."""
    config, path = breakout.Config(steps=1600, num_envs=8), tmp_path / "checkpoint.pth"
    agent, history = breakout.train(config, path=path)
    generator = torch.get_rng_state()
    torch.rand(5)
    restored = breakout.Agent(config, 4)
    restored.restore(breakout.load_checkpoint(path, config))
    assert torch.equal(torch.get_rng_state(), generator)
    for a, b in ((agent.network, restored.network), (agent.optimizer, restored.optimizer)):
        a, b = (torch.utils._pytree.tree_leaves(x.state_dict()) for x in (a, b))
        a, b = ([torch.as_tensor(x) for x in leaves if x is not None] for leaves in (a, b))
        assert len(a) == len(b) > 8 and all(map(torch.equal, a, b))
    assert repr(restored.history) == repr(history) and restored.scores == agent.scores
    assert (restored.env_steps, restored.games) == (agent.env_steps, agent.games) and restored.scores.maxlen == 100
    weights = [p.clone() for p in agent.network.parameters()]
    same, _ = breakout.train(config, checkpoint=breakout.load_checkpoint(path, config))  # nothing is left to do
    assert all(map(torch.equal, weights, same.network.parameters()))


def test_kill_9_at_any_moment_leaves_a_whole_checkpoint(start, tmp_path):
    """Eight times, at random; each run goes on from the one before, and loses no more than since its checkpoint."""
    arguments = ("--num-envs", 4, "--output-dir", "out", "--checkpoint-every", 20, "--no-media")
    rng, done = random.Random(0), 0
    for attempt in range(8):
        process = start("a2c_breakout", *arguments, *(["--resume"] if attempt else []))
        wait_for_steps(process, done + 40)
        time.sleep(rng.random() * 0.2)
        process.kill()
        process.communicate()
        breakout.load_checkpoint(tmp_path / "out" / "checkpoint.pth", breakout.Config(num_envs=4))
        saved = checkpoint(tmp_path / "out")["env_steps"]
        assert saved >= done + 20
        done = saved
    assert set(os.listdir(tmp_path / "out")) <= {"checkpoint.pth", ".checkpoint.pth.part"}


KILLED = """
import os, sys, pathlib, a2c_breakout as breakout
save = breakout.save
def half(path, write):
    def stop(file):
        write(file)
        file.truncate(file.tell() // 2)
        os.kill(os.getpid(), 9)
    save(path, stop)
breakout.save = half
path = pathlib.Path(sys.argv[1])
breakout.train(breakout.Config(steps=400, num_envs=4), checkpoint=breakout.load(path), path=path)
"""


def test_kill_9_in_the_middle_of_a_checkpoint_keeps_the_old_one(tmp_path):
    path = tmp_path / "checkpoint.pth"
    breakout.train(breakout.Config(steps=200, num_envs=4), path=path)
    before = path.read_bytes()
    assert subprocess.run([sys.executable, "-c", KILLED, path], cwd=ROOT, capture_output=True).returncode == -9
    assert path.read_bytes() == before and len(os.listdir(tmp_path)) == 2


# Several processes

WORKER = """
import os, sys, torch, a2c_breakout as breakout
import torch.distributed as dist
rank, agent = int(os.environ["RANK"]), None
real, reset, seeds = breakout.train, breakout.AtariVectorEnv.reset, []
breakout.AtariVectorEnv.reset = lambda self, *, seed: (seeds.extend(seed.tolist()), reset(self, seed=seed))[1]
def train(*arguments, **options):
    global agent
    agent, history = real(*arguments, **options)
    torch.save([agent.network.state_dict(), agent.env_steps, seeds[:4]], f"rank{rank}.pth")
    return agent, history
breakout.train = train
breakout.main(sys.argv[1:])
"""

HALVES = """
import os, sys, torch, numpy as np, a2c_breakout as breakout
import torch.distributed as dist
def gradient(rows):
    agent = breakout.Agent(breakout.Config(max_grad_norm=1000.0, bfloat16=0), 4)
    agent.optimizer.step = lambda: None
    data = np.load("data.npz")
    for t in range(5):
        logits, value = agent.network(torch.from_numpy(data["state"][t, rows]))
        columns = (data[name][t, rows] for name in ("action", "reward", "terminated", "truncated", "valid"))
        agent.storage.insert(logits, value, *columns)
    agent.learn(data["state"][5, rows])
    return torch.cat([p.grad.flatten() for p in agent.network.parameters()])
torch.manual_seed(0)
whole = gradient(slice(None))
dist.init_process_group("gloo")
rank = dist.get_rank()
torch.manual_seed(0)
torch.save([whole, gradient(slice(4 * rank, 4 * rank + 4))], f"rank{rank}.pth")
dist.destroy_process_group()
"""


def torchrun(folder, code, *arguments):
    """Runs code in two processes, as torchrun starts them; returns what they printed, and the file of each."""
    (folder / "worker.py").write_text(code)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, "worker.py", *map(str, arguments)], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, [torch.load(folder / f"rank{rank}.pth", weights_only=True) for rank in (0, 1)]


def test_two_processes_keep_the_same_weights_and_play_different_games(tmp_path):
    arguments = ("--num-envs", 4, "--output-dir", "out", "--games", 1, "--no-media")
    out, (a, b) = torchrun(tmp_path, WORKER, "--steps", 2000, *arguments)
    assert out.count("Training on") == out.count("Trained after") == 1 and "2 x 4 games" in out
    assert all(torch.equal(a[0][name], b[0][name]) for name in a[0])
    assert a[1] == b[1] and 2000 <= a[1] < 2040 and len({*a[2], *b[2]}) == 8
    saved = checkpoint(tmp_path / "out")
    assert saved["env_steps"] == a[1] and torch.equal(saved["network"]["actor.weight"], a[0]["actor.weight"])
    out, (c, d) = torchrun(tmp_path, WORKER, "--steps", 2400, *arguments, "--resume")
    assert all(torch.equal(c[0][name], d[0][name]) for name in c[0]) and 2400 <= c[1] == d[1] < 2440


def test_the_averaged_gradient_is_one_processs_over_both_halves(tmp_path):
    rng, shape = np.random.default_rng(0), (5, 8)
    data = {"state": rng.integers(256, size=(6, 8, 4, 84, 84), dtype=np.uint8), "action": rng.integers(4, size=shape)}
    data |= {name: rng.random(shape) < 0.2 for name in ("terminated", "truncated", "valid")}
    np.savez(tmp_path / "data.npz", **data, reward=rng.normal(size=shape).astype(np.float32))
    _, ((whole, a), (_, b)) = torchrun(tmp_path, HALVES)
    assert torch.equal(a, b) and a.norm() > 1e-3
    torch.testing.assert_close(a, whole, rtol=1e-3, atol=1e-6)


# Playing


def test_random_shows_the_task(run, tmp_path):
    status, out, err = run("a2c_breakout", "random", "--games", 3, "--seed", 1)
    assert (status, err) == (0, "")
    assert "(4, 84, 84)" in out and "210, 160, 3" in out and "'NOOP', 'FIRE', 'RIGHT', 'LEFT'" in out
    folder = tmp_path / "runs" / "a2c_breakout" / "random"
    assert sorted(os.listdir(folder)) == ["play.gif", "scores.csv"]


def test_the_animation_is_the_best_game_again():
    """Played again by its actions, it ends where it ended, with the same points, life by life."""
    scores, best_lives, seeds, actions = breakout.play(breakout.RandomAgent(breakout.Config()), 6, 5)
    assert scores.max() > 0 and len(set(seeds)) == 6
    for game in range(6):
        env = breakout.make_env(1)
        env.reset(seed=seeds[game : game + 1])
        lives, left, terminated, steps = [0] * 6, 5, [False], 0
        while not terminated[0]:
            _, reward, terminated, _, info = env.step(actions[steps, game : game + 1])
            lives[left] += int(reward[0])
            left, steps = info["lives"][0], steps + 1
        assert (sum(lives), max(lives)) == (scores[game], best_lives[game])
        assert len(breakout.animation(actions[:, game], seeds[game])) == steps + 1


def test_a_game_that_does_not_end_is_cut_short_after_five_minutes(monkeypatch, capsys):
    """Nobody ever presses FIRE. Time up is no end: it is truncated, not terminated."""
    ends, step = [], breakout.AtariVectorEnv.step

    def spied(self, action):
        result = step(self, action)
        ends.append((bool(result[2][0]), bool(result[3][0])))
        return result

    monkeypatch.setattr(breakout.AtariVectorEnv, "step", spied)
    agent = breakout.RandomAgent(breakout.Config())
    agent.act = lambda state: np.zeros(len(state), int)
    scores, _, _, actions = breakout.play(agent, 1, 0)
    assert scores.tolist() == [0] and 18_000 / 4 - 30 <= len(actions) <= 18_000 / 4
    assert set(ends[:-1]) == {(False, False)} and ends[-1] == (False, True)
    assert capsys.readouterr().out.splitlines()[1].split() == ["1", "0", "0"]


def test_the_shipped_agent_plays_out_of_the_box(run, tmp_path):
    status, out, err = run("a2c_breakout", "play", "--games", 4)
    assert (status, err) == (0, "")
    mean = float(re.search(r"4 games: mean ([\d.]+)", out)[1])
    assert mean > SHIPPED_SCORE and os.path.getsize(SHIPPED) < 4e6
    folder = tmp_path / "runs" / "a2c_breakout" / "play"
    assert sorted(os.listdir(folder)) == ["play.gif", "scores.csv"]
    scores = np.genfromtxt(folder / "scores.csv", delimiter=",", names=True)["score"]
    assert scores.mean() == pytest.approx(mean, abs=0.1)


def test_upper_bricks_pay_more():
    """As the shipped agent, which gets there, finds: rewards are the game's points, 1, 4 or 7."""
    agent = breakout.load_weights(SHIPPED, breakout.Config())
    env = breakout.make_env(8)
    state, _ = env.reset(seed=np.arange(8))
    rewards = set()
    torch.manual_seed(0)
    for _ in range(500):
        state, reward, *_ = env.step(agent.act(state))
        rewards |= set(reward.tolist())
    assert {0, 1, 4} <= rewards <= {0, 1, 4, 7, 8, 11}  # two bricks in four frames are possible


# Bad input


class Malicious:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def foreign_files(folder):
    """Files that are no weights and no checkpoint of ours."""
    good = breakout.Agent(breakout.Config(), 4).network.state_dict()
    torch.save(good, folder / "weights.pth")
    whole = (folder / "weights.pth").read_bytes()
    (folder / "empty.pth").write_bytes(b"")
    (folder / "truncated.pth").write_bytes(whole[: len(whole) // 2])
    (folder / "text.pth").write_text("no weights")
    torch.save(Malicious(), folder / "malicious.pth")
    torch.save([1, 2], folder / "list.pth")
    torch.save({k: v for k, v in good.items() if k != "actor.bias"}, folder / "missing.pth")
    torch.save(good | {"actor.weight": torch.zeros(6, 512)}, folder / "other_game.pth")
    torch.save({k: torch.full_like(v, torch.nan) for k, v in good.items()}, folder / "nan.pth")
    (folder / "folder.pth").mkdir()


def refused(result, *named):
    status, out, err = result
    assert (status, out) == (2, "") and err.count("\n") == 1 and err.startswith("a2c_breakout.py: error: "), err
    assert all(str(name) in err for name in named)


def test_bad_weights_are_one_line_and_status_2(monkeypatch, capsys, tmp_path):
    foreign_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    names = ["nowhere", "empty", "truncated", "text", "malicious", "list", "missing", "other_game", "nan", "folder"]
    before = sorted(os.listdir())
    for name in names:
        with pytest.raises(SystemExit) as end:
            breakout.main(["play", "--weights", f"{name}.pth"])
        refused((end.value.code, *capsys.readouterr()), f"{name}.pth")
    assert sorted(os.listdir()) == before


def test_bad_checkpoints_are_one_line_and_status_2(monkeypatch, capsys, tmp_path):
    foreign_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "out"
    out.mkdir()

    def refuse(*named, arguments=()):
        before = {file: file.read_bytes() for file in out.iterdir()}
        with pytest.raises(SystemExit) as end:
            breakout.main(["--output-dir", "out", "--resume", *arguments])
        refused((end.value.code, *capsys.readouterr()), *named)
        assert {file: file.read_bytes() for file in out.iterdir()} == before and not os.path.exists("executed")

    refuse("checkpoint.pth")  # there is none
    for name in ("weights", "empty", "truncated", "text", "malicious", "list", "nan"):
        (out / "checkpoint.pth").write_bytes((tmp_path / f"{name}.pth").read_bytes())
        refuse("checkpoint.pth")
    breakout.train(breakout.Config(steps=100, num_envs=4), path=out / "checkpoint.pth")
    capsys.readouterr()
    refuse("num_envs", "4", "32")
    refuse("gamma", "0.5", arguments=["--num-envs", "4", "--gamma", "0.5"])


BAD = [
    (["watch"], "'watch'"),
    (["--games", "0"], "games"),
    (["play", "--games", "100000"], "games"),
    (["--num-envs", "0"], "num_envs"),
    (["--steps", "many"], "'many'"),
    (["--clip-rewards", "2"], "clip_rewards"),
    (["--seed", str(2**32)], "seed"),
    (["--output-dir", "file"], "file"),
    (["play", "--output-dir", "file"], "file"),
    (["random", "--output-dir", "/proc/nothing"], "/proc/nothing"),
    (["play", "--resume"], "--resume"),
    (["random", "--weights", "file"], "--weights"),
]


@pytest.mark.parametrize("arguments, named", BAD)
def test_bad_input_is_one_line_and_status_2(arguments, named, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("kept")
    with pytest.raises(SystemExit) as end:
        breakout.main(arguments)
    refused((end.value.code, *capsys.readouterr()), named)
    assert os.listdir(tmp_path) == ["file"] and (tmp_path / "file").read_text() == "kept"


def test_every_field_is_a_flag(run):
    status, out, err = run("a2c_breakout", "--help")
    assert (status, err) == (0, "") and max(map(len, out.splitlines())) <= 80
    for name in [*breakout.Config.__dataclass_fields__, "resume", "weights", "games", "output-dir", "no-media"]:
        assert f"--{name.replace('_', '-')}" in out
