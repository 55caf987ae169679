"""Prioritized replay on Breakout: the memory against plain lists, the switches, the outside."""

import copy
import difflib
import inspect
import json
import os
import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import ROOT, Scripted
from test_breakout import TRAINED, wait_for_steps

import a2c_breakout
import per_cartpole

sys.path.insert(0, str(ROOT / "extras"))
import per_breakout as per
from per_breakout import Agent, Config, ReplayMemory


def play(monkeypatch, config, steps, seed=0):
    """Fill a memory from scripted games; return it, and what plain lists say it holds.

    The list has a transition for each step and game that is one, in the order of the memory:
    {(step, game): (state, action, n-step reward, next state, discount)}.
    """
    rng = np.random.default_rng(seed)
    monkeypatch.setattr(per, "make_env", lambda n, frames: Scripted(n, rng))
    games, memory = per.Games(config.num_envs, seed, 0), ReplayMemory(config)
    track = [[] for _ in range(config.num_envs)]  # of each game: (state, action, reward, ends...)
    pictures = [[frame] for frame in games.state[:, -1]]  # of this life
    for _ in range(steps):
        action = rng.integers(4, size=config.num_envs)
        frame = games.state[:, -1]
        states = [np.array([np.zeros_like(frame[0])] * 3 + p)[-4:] for p in pictures]
        assert all(np.array_equal(a, b) for a, b in zip(states, games.state, strict=True))
        reward, *ends = games.step(action)
        memory.push(frame, action, reward, *ends)
        for game in range(config.num_envs):
            terminated, truncated, valid = (bool(end[game]) for end in ends)
            track[game].append(
                (states[game], action[game], reward[game], terminated, truncated, valid)
            )
            if terminated or not valid:
                pictures[game] = []
            pictures[game].append(games.state[game, -1])
    expected = {}
    rows = config.memory_size // config.num_envs
    for game, path in enumerate(track):
        for t in range(max(0, steps - rows + 3 * (steps > rows)), steps - config.n_step):
            if path[t][-1]:
                total, discount, k = 0.0, 1.0, t
                while True:
                    total += discount * path[k][2]
                    discount *= config.gamma
                    if path[k][3]:
                        discount = 0.0
                    k += 1
                    if path[k - 1][3] or path[k - 1][4] or k == t + config.n_step:
                        break
                expected[t, game] = *path[t][:2], total, path[k][0], discount
    return memory, expected


def drawn(memory):
    """Return {(step, game): transition} of all leaves with a priority, through sample()."""
    leaves = np.flatnonzero(memory.tree[np.arange(memory.valid.size)])
    memory.tree.find = lambda value: leaves
    batch = memory.sample(len(leaves), 0.5)
    rows = memory.valid.shape[0]
    found = {}
    for i, leaf in enumerate(leaves):
        row, game = divmod(int(leaf), memory.config.num_envs)
        step = row + (memory.pushed - 1 - row) // rows * rows
        found[step, game] = tuple(column[i].numpy() for column in batch[:5])
    return found


@pytest.mark.parametrize("n_step", [1, 3])
@pytest.mark.parametrize("steps", [1, 4, 9, 30, 31, 50, 100, 151])
def test_the_memory_against_plain_lists_of_stacks(monkeypatch, n_step, steps):
    """Lost lives, ends, cuts and resets at every position; the memory has 40 rows and wraps."""
    config = Config(num_envs=5, memory_size=200, learn_start=100, n_step=n_step, gamma=0.9)
    for seed in range(3):
        memory, expected = play(monkeypatch, config, steps, seed)
        if steps <= n_step:
            assert not expected and memory.tree.nodes[1] == 0
            continue
        found = drawn(memory)
        assert found.keys() == expected.keys()
        for key, (state, action, reward, next_state, discount) in expected.items():
            assert np.array_equal(found[key][0], state) and found[key][1] == action
            assert found[key][2] == pytest.approx(reward, rel=1e-6)
            assert found[key][4] == pytest.approx(discount, rel=1e-6)
            if discount:
                assert np.array_equal(found[key][3], next_state), key


def test_a_memory_saved_and_filled_further_joins_no_games(monkeypatch):
    """What was the last step when it was saved leads nowhere; the step before it is cut."""
    config = Config(num_envs=5, memory_size=200, learn_start=100, n_step=3, gamma=0.9)
    memory, expected = play(monkeypatch, config, 60)
    other = ReplayMemory(config)
    arrays = [torch.from_numpy(a.copy()) for a in (*memory.columns, memory.tree.nodes)]
    other.restore(memory.pushed, memory.max_priority, *arrays)
    other.end_games()
    frame, no = np.full((5, 84, 84), 9, np.uint8), np.zeros(5, bool)
    for _ in range(6):
        other.push(frame, np.zeros(5, int), np.ones(5), no, no, ~no)
    found = drawn(other)
    assert not any(step == 59 for step, _ in found)
    for (step, _), (state, _, reward, next_state, discount) in found.items():
        if step >= 60:
            assert state[-1].min() == 9 and set(np.unique(state[:-1])) <= {0, 9}
            assert reward == pytest.approx(1 + 0.9 + 0.81)
        elif discount:
            assert not (next_state == 9).all((1, 2)).any(), step
    kept = [key for key in found if key in expected and key[0] < 56]
    assert len(kept) > 50
    for key in kept:
        for a, b in zip(found[key], expected[key], strict=True):
            assert np.allclose(a, b) or not expected[key][4]


def test_tree_weights_and_target_are_those_of_cartpole():
    """The tree to the letter; weights and targets in numbers, of one step and two networks."""
    assert inspect.getsource(per.SumTree) == inspect.getsource(per_cartpole.SumTree)
    rng = np.random.default_rng(0)
    config = Config(num_envs=4, memory_size=100, learn_start=50, n_step=1, gamma=0.9, bfloat16=0)
    ours = ReplayMemory(config)
    theirs = per_cartpole.ReplayMemory(per_cartpole.Config(memory_size=100, beta=0.7), 4)
    no = np.zeros(4, bool)
    for _ in range(25):
        ours.push(np.zeros((4, 84, 84), np.uint8), np.zeros(4, int), np.zeros(4), no, no, ~no)
    for leaf, priority in enumerate(rng.random(100)):
        theirs.push(np.zeros(4), 0, 0, np.zeros(4), False)
        ours.tree[leaf] = theirs.tree[leaf] = priority
    theirs.pushed, theirs.config.beta_steps = 100, 10**9
    index = np.arange(0, 100, 7)
    np.testing.assert_allclose(ours.weights(index, 0.7), theirs.weights(index), rtol=1e-6)

    agent = Agent(config)
    for p in agent.target_network.parameters():
        p.data += 0.02 * torch.randn_like(p)
    states = torch.from_numpy(rng.integers(256, size=(6, 4, 84, 84), dtype=np.uint8))
    reward, terminated = torch.rand(6), torch.tensor([0.0, 1, 0, 0, 1, 0])
    batch = per.Batch(states, None, reward, states, 0.9 * (1 - terminated), None, None)
    same = SimpleNamespace(next_state=states, reward=reward, terminated=terminated)
    double = per_cartpole.Agent.td_target(agent, same)
    torch.testing.assert_close(agent.td_target(batch), double)
    agent.config.double = 0
    single = reward + 0.9 * (1 - terminated) * agent.target_network(states).amax(1).detach()
    torch.testing.assert_close(agent.td_target(batch), single)
    assert not torch.allclose(double, single)


def test_the_switches():
    """alpha 0 draws all alike; beta 0 has no weights; dueling: mean advantage 0, one value more."""
    config = Config(num_envs=4, memory_size=100, learn_start=50, alpha=0, n_step=1)
    memory, no = ReplayMemory(config), np.zeros(4, bool)
    for _ in range(25):
        memory.push(np.zeros((4, 84, 84), np.uint8), np.zeros(4, int), np.zeros(4), no, no, ~no)
    memory.update(np.arange(20, 28), np.linspace(0, 9, 8))
    leaves = memory.tree[np.arange(100)]
    assert set(leaves) == {0.0, 1.0} and leaves.sum() == 4 * (25 - 1 - 3)
    memory.tree[np.arange(50)] = 7.0
    assert (memory.weights(np.arange(0, 80, 9), 0.0) == 1).all()
    torch.manual_seed(0)
    plain, dueling = per.QNetwork(4), per.QNetwork(4, dueling=True)
    assert plain.head.out_features == 4 and dueling.head.out_features == 5
    states = torch.randint(256, (3, 4, 84, 84), dtype=torch.uint8)
    value = dueling.head(dueling.conv(states / 255))[:, 0]
    assert dueling(states).shape == (3, 4)
    torch.testing.assert_close(dueling(states).mean(1), value, rtol=1e-3, atol=1e-4)


def test_fire_starts_each_life():
    """A state without pictures of before is the first of a life; the others are the policy's."""
    state = np.ones((3, 4, 84, 84), np.uint8)
    state[0, :3] = state[1, :2] = 0
    for fire in (0, 1):
        agent = Agent(Config(fire=fire))
        torch.nn.init.zeros_(agent.q_network.head.weight)
        agent.q_network.head.bias.data = torch.tensor([0.0, 0, 0, 1])
        assert agent.act(state, epsilon=0.0).tolist() == [1 if fire else 3, 3, 3]
    many = agent.act(
        np.ones((400, 4, 84, 84), np.uint8), epsilon=0.5
    )  # each game by its own chance
    assert 90 < (many != 3).sum() < 210 and set(many) == {0, 1, 2, 3}


def test_the_games_are_prepared_as_for_a2c(monkeypatch):
    """All but the stacks, which the memory makes. (What A2C's are is tested beside the emulator.)"""
    monkeypatch.setattr(per.ale_py.vector_env, "AtariVectorEnv", lambda *a, **k: (a, k))
    for colour in (False, True):
        ours, theirs = (module.make_env(3, 777, colour) for module in (per, a2c_breakout))
        assert ours[1].pop("stack_num") == 1 and theirs[1].pop("stack_num") == (1 if colour else 4)
        assert ours == theirs


@pytest.mark.parametrize("module", [per, a2c_breakout])
def test_points_of_games_and_lives_by_hand(monkeypatch, module):
    monkeypatch.setattr(module, "make_env", lambda n, _: Scripted(n, np.random.default_rng(0)))
    games = module.Games(5, 0, 0)
    score, life, best, lives, over = np.zeros(5), np.zeros(5), np.zeros(5), np.full(5, 5), [0] * 5
    for _ in range(200):
        reward, *_ = games.step(None)
        now, again = games.env.lives, games.env.over
        for i in range(5):
            if over[i]:
                score[i] = life[i] = best[i] = 0
            score[i], life[i] = score[i] + reward[i], life[i] + reward[i]
            best[i] = max(best[i], life[i])
            if now[i] != lives[i]:
                life[i] = 0
        lives, over = now, again
        assert np.array_equal(games.points, [score, life, best])


@pytest.mark.parametrize("module", [per, a2c_breakout])
def test_play_tells_of_first_games_and_shows_the_first(monkeypatch, capsys, tmp_path, module):
    """Score and best life of each by hand; the pictures are of what was done in game 1."""
    real, made, shown, done = module.Games, [], [], []

    def make_env(num_envs, max_frames, colour=False):
        assert max_frames == 777 and num_envs == (1 if colour else 6)
        made.append(Scripted(num_envs, np.random.default_rng(0)))
        if not colour:
            return made[-1]
        picture = np.zeros((1, 1, 210, 160, 3), np.uint8)
        step = lambda action: shown.append(action.tolist()) or [picture]  # noqa: E731
        return SimpleNamespace(reset=lambda seed: shown.append(seed.tolist()), step=step)

    class Noted(real):
        def step(self, action):
            lives = made[0].lives
            reward, *ends = super().step(action)
            acted = getattr(self, "action", action)  # with FIRE, where A2C's games press it
            done.append((acted, reward.astype(int), made[0].lives != lives, made[0].over))
            return reward, *ends

    monkeypatch.setattr(module, "make_env", make_env)
    monkeypatch.setattr(module, "Games", Noted)
    config, rng = module.Config(games=6, max_frames=777, seed=4), np.random.default_rng(1)
    config.mode = "play"
    agent = SimpleNamespace(act=lambda state: rng.integers(4, size=len(state)))
    test, table, _ = module.play(agent, config)
    expected, lengths = [], []
    for game in range(6):
        total = life = best = 0
        lengths.append(next(t for t, (*_, over) in enumerate(done, 1) if over[game]))
        for _, reward, lost, _ in done[: lengths[-1]]:
            total, life = total + reward[game], life + reward[game]
            best, life = max(best, life), 0 if lost[game] else life
        expected.append([game + 1, total, best])
    table(tmp_path / "scores.csv")
    rows = np.loadtxt(tmp_path / "scores.csv", delimiter=",", skiprows=1, dtype=int).tolist()
    assert rows == expected and len(set(lengths)) > 2 and len(done) == max(lengths)
    assert any(best < total for _, total, best in rows)
    scores = np.array(expected)[:, 1]
    assert (test["mean"], test["std"]) == (scores.mean(), scores.std())
    assert (test["min"], test["max"], test["episodes"]) == (scores.min(), scores.max(), 6)
    assert test["best_life"] == max(best for *_, best in expected)
    assert f"{scores.mean():.1f}" in capsys.readouterr().out
    first = [[action[0]] for action, *_ in done[: lengths[0]]]
    assert shown == [real(6, 4, 777).seeds[:1].tolist(), *first]


def test_beta_rises_over_the_training_and_0_stays():
    class Asked(Exception):
        pass

    def sample(batch_size, beta):
        raise Asked(beta)

    for beta, wanted in (0.4, [0.4, 0.7, 1, 1]), (0.0, [0, 0, 0, 0]):
        agent = Agent(Config(steps=1000, beta=beta))
        agent.memory = SimpleNamespace(sample=sample)
        for env_steps, value in zip((0, 500, 1000, 1200), wanted, strict=True):
            agent.env_steps = env_steps
            with pytest.raises(Asked) as asked:
                agent.learn()
            assert asked.value.args[0] == pytest.approx(value)


def test_a_sample_has_one_of_each_part_with_weights_of_its_beta(monkeypatch):
    """And a transition that is new is as likely as the one that surprised most."""
    config = Config(num_envs=5, memory_size=200, learn_start=100, n_step=1, alpha=0.5)
    memory, _ = play(monkeypatch, config, 30)
    memory.update(np.arange(20, 60), np.linspace(0, 9, 40))
    memory.update(np.arange(20, 30), np.zeros(10))
    ready = (memory.pushed - 1) * 5 + np.arange(5)  # their next state is the one pushed now
    no = np.zeros(5, bool)
    memory.push(np.zeros((5, 84, 84), np.uint8), np.zeros(5, int), np.zeros(5), no, no, ~no)
    assert memory.max_priority == pytest.approx(9.01**0.5)
    assert set(memory.tree[ready]) <= {0.0, memory.max_priority} and memory.tree[ready].any()
    leaves = memory.tree[np.arange(200)]
    parts, above = np.arange(17) * leaves.sum() / 16, np.cumsum(leaves)
    for _ in range(50):
        batch = memory.sample(16, 0.7)
        assert (above[batch.index] > parts[:-1] - 1e-9).all()
        assert (above[batch.index] - leaves[batch.index] < parts[1:] + 1e-9).all()
        np.testing.assert_allclose(batch.weight, memory.weights(batch.index, 0.7), 1e-6)


def test_a_batch_learns_what_autograd_by_hand_says(monkeypatch):
    """One update: weights outside the loss, new priorities, the target copied in time."""
    config = Config(
        num_envs=5,
        memory_size=200,
        learn_start=100,
        batch_size=8,
        target_every=2,
        bfloat16=0,
        alpha=0.7,
        max_grad_norm=1e-4,
    )
    agent = Agent(config)
    agent.memory, _ = play(monkeypatch, config, 30)
    agent.memory.config = config
    batches, sample = [], agent.memory.sample
    agent.memory.sample = lambda *a: batches.append(sample(*a)) or batches[-1]
    q0 = copy.deepcopy(agent.q_network)
    agent.memory.tree[np.arange(200)] *= np.linspace(1, 9, 200)
    for p in agent.q_network.parameters():
        p.grad = torch.ones_like(p)  # of the update before: counts no more
    loss = agent.learn()
    batch = batches[0]
    delta = (
        batch.reward
        + batch.discount * q0(batch.next_state).amax(1).detach()
        - q0(batch.state).gather(1, batch.action).squeeze(1)
    )
    huber = torch.where(delta.abs() < 1, delta**2 / 2, delta.abs() - 0.5)
    by_hand = (batch.weight * huber).mean()
    assert loss == pytest.approx(by_hand.item(), rel=1e-4)
    assert batch.weight.max() == 1 and batch.weight.min() < 1
    wanted = (delta.abs().detach().numpy() + 0.01) ** 0.7
    last = {int(i): p for i, p in zip(batch.index, wanted, strict=True)}  # drawn twice: the last
    np.testing.assert_allclose(agent.memory.tree[np.array(list(last))], list(last.values()), 1e-3)
    same = [torch.equal(a, b) for a, b in zip(q0.parameters(), agent.target_network.parameters())]
    assert all(same)
    gradient = [g.flatten() for g in torch.autograd.grad(by_hand, q0.parameters())]
    wanted = torch.nn.functional.normalize(torch.cat(gradient), dim=0) * 1e-4  # clipped
    means = [state["exp_avg"].flatten() for state in agent.optimizer.state.values()]
    torch.testing.assert_close(torch.cat(means) / 0.1, wanted, rtol=1e-2, atol=1e-8)
    agent.learn()
    pairs = zip(agent.q_network.parameters(), agent.target_network.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


# The outside

SHORT = ["--steps", 1200, "--num-envs", 8, "--learn-start", 400, "--batch-size", 8]
SHORT += ["--epsilon-steps", 400, "--games", 1, "--memory-size", 2000, "--max-frames", 400]


def test_what_a2c_breakout_has_too_is_the_same_to_the_letter():
    for name in ("setting", "say", "save", "learning_curve", "load"):
        a, b = (inspect.getsource(getattr(module, name)) for module in (per, a2c_breakout))
        assert a == b, name
    for name in ("parse", "play", "main"):
        a, b = (inspect.getsource(getattr(m, name)).splitlines() for m in (per, a2c_breakout))
        changed = [line for line in difflib.ndiff(a, b) if line[0] in "+-"]
        assert len(changed) <= 8, changed


def test_a_training_writes_its_files_and_goes_on_with_an_empty_memory(run, tmp_path):
    status, out, err = run("extras/per_breakout", *SHORT)
    folder = tmp_path / "runs" / "per_breakout"
    assert status == 0 and "Trained for 1,2" in out and "Warning" not in err, err
    assert sorted(os.listdir(folder)) == TRAINED
    summary = json.loads((folder / "summary.json").read_text())
    assert 1200 <= summary["env_steps"] < 1208 and summary["evaluation"]["episodes"] == 1
    history = np.genfromtxt(folder / "history.csv", delimiter=",", names=True, ndmin=1)
    assert history.dtype.names == per.Update._fields and 0 < history["loss"][0] < 1
    assert os.path.getsize(folder / "weights.pth") < 4e6
    status, out, err = run("extras/per_breakout", "--resume", "--steps", 1400)
    assert status == 0 and "memory starts empty" in out and "Trained for 1,4" in out
    weights = folder / "weights.pth"
    status, out, err = run("extras/per_breakout", "play", "--weights", weights, "--games", 2)
    assert (status, err) == (0, "") and "2 games: mean" in out
    status, out, err = run("extras/per_breakout", "random", "--games", 2)
    assert (status, err) == (0, "") and "(4, 84, 84)" in out and "'FIRE'" in out


@pytest.mark.parametrize("with_memory", [0, 1])
def test_kill_9_and_resume(start, run, tmp_path, with_memory):
    """A checkpoint is whole at any moment; with its memory, learning goes on at once."""
    flags = ["--checkpoint-every", 40, "--checkpoint-memory", with_memory]
    process = start("extras/per_breakout", *SHORT, *flags)
    wait_for_steps(process, 700)
    process.kill()
    process.communicate()
    path = tmp_path / "runs" / "per_breakout" / "checkpoint.pth"
    saved = per.load(path, dict)
    assert saved["progress"][0] >= 600 and saved["progress"][1] > 0
    agent = Agent(Config(**saved["config"]))
    per.load(path, agent.restore)
    assert agent.updates == saved["progress"][1]
    assert (agent.memory is not None) == with_memory == ("memory" in saved)
    if with_memory:
        assert len(agent.memory) == saved["progress"][0] + (~agent.memory.valid).sum() - (
            agent.memory.valid.size - len(agent.memory)
        )
    status, out, _ = run("extras/per_breakout", "--resume", "--no-media")
    assert status == 0 and ("memory starts empty" in out) == (not with_memory)


def test_a_training_explores_clips_and_counts_as_its_settings_say(monkeypatch):
    """Epsilon falls by the steps; a brick pays 1; resets are no steps; new games when it goes on."""
    real, seeds, envs, epsilons = per.Games, [], [], []

    def make_env(num_envs, max_frames):
        envs.append(Scripted(num_envs, np.random.default_rng(0)))
        return envs[-1]

    monkeypatch.setattr(per, "make_env", make_env)
    monkeypatch.setattr(per, "Games", lambda n, seed, _: seeds.append(seed) or real(n, 0, 0))
    for clip in (1, 0):
        config = Config(seed=3, steps=600, num_envs=5, memory_size=1000, learn_start=900)
        config.clip_rewards, config.epsilon_steps, config.epsilon = clip, 400, 0.2
        agent = Agent(config)

        def noted(state, epsilon, agent=agent):
            epsilons.append((agent.env_steps, epsilon))
            return np.zeros(len(state), int)

        agent.act = noted
        per.train(config, agent)
        reward, valid = agent.memory.reward, agent.memory.valid
        assert 600 <= agent.env_steps == valid.sum() < 605
        assert agent.scores == envs[-1].scores and len(agent.scores) > 10
        assert set(np.unique(reward)) == ({0, 1} if clip else set(range(8)))
        config.steps, rows = 620, agent.memory.pushed
        per.train(config, agent)
        assert agent.memory.pushed > rows and not agent.memory.valid[rows - 1].any()
        assert agent.memory.truncated[rows - 2].all()  # no state joins old games and new ones
    assert all(e == pytest.approx(max(0.2, 1 - n / 400)) for n, e in epsilons)
    assert seeds[0] == [3, 0] and seeds[1][0] == 3 and seeds[1][1] >= 600


def test_what_a_checkpoint_brings_back(monkeypatch, tmp_path):
    """Both networks, the optimizer, the counts and both random streams."""
    monkeypatch.setattr(per, "make_env", lambda n, frames: Scripted(n, np.random.default_rng(0)))
    config = Config(num_envs=5, steps=300, memory_size=200, learn_start=100, batch_size=8)
    config.target_every = 7
    agent, _ = per.train(config)
    per.save(tmp_path / "checkpoint.pth", lambda path: torch.save(agent.checkpoint(), path))
    state = np.ones((50, 4, 84, 84), np.uint8)
    action, random = agent.act(state, 0.9), torch.rand(3)
    again = Agent(config)
    per.load(tmp_path / "checkpoint.pth", again.restore)
    assert np.array_equal(again.act(state, 0.9), action) and torch.equal(torch.rand(3), random)
    for name in ("q_network", "target_network", "optimizer"):
        a, b = (getattr(x, name).state_dict() for x in (agent, again))
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    pair = agent.q_network.head.weight, agent.target_network.head.weight
    assert not torch.equal(*pair) and agent.optimizer.state
    for name in ("env_steps", "updates", "seconds", "scores", "history"):
        assert repr(getattr(agent, name)) == repr(getattr(again, name))
    agent.config.checkpoint_memory = 1
    agent.memory.update(np.arange(5), np.full(5, 4.0))  # an error above 1: the largest so far
    per.save(tmp_path / "checkpoint.pth", lambda path: torch.save(agent.checkpoint(), path))
    per.load(tmp_path / "checkpoint.pth", again.restore)
    assert again.memory.max_priority == agent.memory.max_priority > 2


def test_the_seed_decides_everything():
    flags = dict(zip([f[2:].replace("-", "_") for f in SHORT[::2]], SHORT[1::2], strict=True))
    a, b, c = (per.train(Config(**flags | {"seed": s, "steps": 700}))[0] for s in (1, 1, 2))
    weights = [torch.cat([p.flatten() for p in x.q_network.parameters()]) for x in (a, b, c)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    assert a.scores == b.scores and a.updates == b.updates > 0


def test_the_shipped_agent_plays_out_of_the_box(run, tmp_path):
    status, out, err = run("extras/per_breakout", "play", "--games", 8)
    assert (status, err) == (0, "")
    assert os.path.getsize(ROOT / "weights" / "per_breakout.pth") < 4e6
    assert float(re.search(r"8 games: mean ([\d.]+)", out)[1]) > 70
    assert (tmp_path / "runs" / "per_breakout" / "play" / "play.gif").exists()


BAD = [
    (["watch"], "'watch'"),
    (["--games", "0"], "games"),
    (["--dueling", "2"], "dueling"),
    (["--alpha", "nan"], "alpha"),
    (["--n-step", "0"], "n_step"),
    (["--memory-size", str(10**9)], "GiB"),
    (["--memory-size", "200", "--num-envs", "100"], "memory_size 200 is too small"),
    (["--memory-size", "10000"], "learn_start 20000 is not from 64 to 9992"),
    (["--learn-start", "50"], "learn_start 50 is not from 64"),
    (["--output-dir", "file"], "file"),
    (["play", "--resume"], "--resume"),
    (["play", "--weights", "nowhere.pth"], "trained weights are in the folder weights"),
    (["play", "--weights", "other.pth"], "other.pth"),
    (["play", "--weights", "nan.pth"], "nan.pth is not finite"),
    (["--resume", "--output-dir", "saved", "--alpha", "0"], "alpha is 0.5 there, not 0.0"),
    (["--resume", "--output-dir", "nowhere"], "checkpoint.pth"),
    (["--output-dir", "saved"], "--resume"),
]


@pytest.mark.parametrize("arguments, named", BAD)
def test_bad_input_is_one_line(arguments, named, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(per, "train", None)  # nothing may come so far
    (tmp_path / "file").write_text("kept")
    (tmp_path / "saved").mkdir()
    agent = Agent(Config())
    torch.save(agent.checkpoint(), "saved/checkpoint.pth")
    good = agent.q_network.state_dict()
    torch.save({k: torch.full_like(v, torch.nan) for k, v in good.items()}, "nan.pth")
    torch.save(a2c_breakout.ActorCritic(4).state_dict(), "other.pth")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SystemExit) as end:
        per.main(arguments)
    out, err = capsys.readouterr()
    assert (end.value.code, out, err.count("\n")) == (2, "", 1), err
    assert err.startswith("per_breakout.py: error: ") and named in err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_small_machine_plays_and_trains_with_a_small_memory(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(per.os, "sysconf", {"SC_PHYS_PAGES": 2**17, "SC_PAGE_SIZE": 2**12}.get)
    with pytest.raises(SystemExit):
        per.parse(())
    assert "memory_size needs 1.3 GiB, 0.5 are there" in capsys.readouterr().err
    config, agent = per.parse(("--memory-size", "50000"))
    assert (config.memory_size, agent.memory.pushed) == (50_000, 0)
    per.parse(("play",))


class Signal:
    """Stands for AtariVectorEnv: the bright half of the picture says which of two actions pays."""

    def __init__(self, num_envs):
        self.rng, self.lives = np.random.default_rng(0), np.full(num_envs, 5)

    def observe(self):
        self.side = self.rng.integers(2, size=len(self.lives))
        frame = np.zeros((len(self.lives), 1, 84, 84), np.uint8)
        for i, side in enumerate(self.side):
            frame[i, 0, :, 42 * side : 42 * side + 42] = 255
        return frame

    def reset(self, seed):
        return self.observe(), {"lives": self.lives}

    def step(self, action):
        reward, no = np.int64(action == self.side + 1), np.zeros(len(self.lives), bool)
        return self.observe(), reward, no, no, {"lives": self.lives}


@pytest.mark.parametrize("switches", [{}, {"dueling": 1, "double": 0, "alpha": 0.0, "beta": 0.0}])
def test_it_learns_what_pays(monkeypatch, switches):
    """States, actions and rewards belong together from the games to the network."""
    monkeypatch.setattr(per, "make_env", lambda n, frames: Signal(n))
    settings = {"steps": 2000, "num_envs": 8, "batch_size": 16, "memory_size": 2000}
    settings |= {"learn_start": 200, "epsilon_steps": 1000, "target_every": 20, "n_step": 1}
    agent, history = per.train(Config(**settings, gamma=0.5, learning_rate=1e-3, **switches))
    env, right = Signal(8), 0
    frame, state = env.observe(), np.zeros((8, 4, 84, 84), np.uint8)
    for _ in range(25):
        state = np.concatenate([state[:, 1:], frame], 1)
        frame, reward, *_ = env.step(agent.act(state, 0.0))
        right += reward.sum()
    assert right > 190, right
    assert history[-1].env_steps == 2000 and np.isnan(history[-1].mean)


def test_a_resumed_training_skips_no_line_of_its_history(monkeypatch):
    """Of 16,000 steps each, whatever the last line before was."""
    monkeypatch.setattr(per, "make_env", lambda n, frames: Scripted(n, np.random.default_rng(0)))
    config = Config(steps=33_000, num_envs=32, memory_size=640, learn_start=600, epsilon=1.0)
    agent = Agent(config)
    monkeypatch.setattr(agent, "learn", lambda: 0.0)
    agent.env_steps = 20_000
    agent.history = [per.Update(n, 0, *[np.nan] * 4) for n in (16_020, 20_000)]
    _, history = per.train(config, agent)
    assert [row.env_steps // 1000 for row in history] == [16, 20, 32, 33]
