"""The arithmetic of importance weights in docs/per_ablation.md."""

from functools import partial
from unittest import mock

import breakout_arms
import inside
import numpy as np
import pandas
import pytest
import torch

import per_cartpole
import weights


@pytest.fixture
def table():
    return weights.directions(*weights.memory())


def test_outside_at_beta_1_is_uniform_replay(table):
    assert table["outside: cosine with uniform"][1.0] == pytest.approx(1, abs=1e-9)
    assert table["outside: cosine with uniform"][0.0] < 0.995


def test_inside_is_uniform_at_one_half_and_reversed_above(table):
    assert table["inside: cosine with uniform"][0.5] == pytest.approx(1, abs=1e-9)
    assert table["inside: cosine with uniform"][1.0] < -0.5
    share = table["inside: rewarded share"]
    uniform = table["outside: rewarded share"][1.0]
    assert share[0.5] == pytest.approx(uniform) and share[0.4] > uniform > share[0.7] > share[1.0]


def test_beta_0_has_no_weights(table):
    for what in ("cosine with uniform", "length / uniform's", "rewarded share"):
        assert table[f"inside: {what}"][0.0] == pytest.approx(table[f"outside: {what}"][0.0])


@pytest.mark.parametrize("inside, power", [(False, 1), (True, 2)])
def test_the_factor_of_one_transition(inside, power):
    """By autograd on one transition alone: w^power * delta times the gradient of Q."""
    states, delta = weights.memory()
    probability, one = torch.zeros_like(delta), torch.ones_like(delta)
    probability[3] = 1
    plain = weights.gradient(states, delta, probability, one, inside)
    weighed = weights.gradient(states, delta, probability, 0.3 * one, inside)
    torch.testing.assert_close(weighed, 0.3**power * plain)


def test_rmsprop_with_its_epsilon_in_the_root_does_not_rescale_small_gradients():
    """Against a loop of its update."""
    for size, share in weights.steps()["RMSProp"].items():
        mean_square = 0.0
        for _ in range(1000):
            mean_square = 0.95 * mean_square + 0.05 * size**2
        assert share == pytest.approx(size / (mean_square + 0.01) ** 0.5)
    assert weights.steps()["RMSProp"][0.01] < 0.11 and weights.steps()["Adam"][0.01] > 0.99


def test_the_articles_rmsprop_against_numpy():
    """TensorFlow 1's: the mean square starts at 1, epsilon is inside the root, then momentum."""
    p = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    optimizer, weight = inside.RMSProp([p], 0.1), np.array([1.0, -2.0])
    square, step = np.ones(2), np.zeros(2)
    for g in np.array([[0.5, -1e-3], [0.4, 2.0], [-3.0, 0.0]]):
        p.grad = torch.tensor(g, dtype=torch.float32)
        optimizer.step()
        square = 0.9 * square + 0.1 * g**2
        step = 0.95 * step + 0.1 * g / np.sqrt(square + 0.01)
        weight -= step
    np.testing.assert_allclose(p.detach(), weight, rtol=1e-5)


def cartpole(agent_class):
    agent, rng = (
        agent_class(per_cartpole.Config(batch_size=8, memory_size=64), 4, 2),
        np.random.default_rng(0),
    )
    for _ in range(64):
        agent.memory.push(rng.normal(size=4), 0, 0.0, rng.normal(size=4), True)
    return agent, ()


def breakout(agent_class):
    config = breakout_arms.script.Config(batch_size=8, memory_size=64, num_envs=2, learn_start=50)
    agent, rng = agent_class(config), np.random.default_rng(0)
    agent.memory = breakout_arms.script.ReplayMemory(config)
    for _ in range(32):
        frame, no = rng.integers(256, size=(2, 84, 84)), np.zeros(2, bool)
        agent.memory.push(frame, no, no, ~no, no, ~no)
    return agent, (0.4,)


@pytest.mark.parametrize("place, power", [("none", 0), ("outside", 1), ("inside", 2)])
@pytest.mark.parametrize(
    "module, fill", [(per_cartpole, cartpole), (breakout_arms.script, breakout)]
)
def test_where_the_weights_stand(module, fill, place, power):
    """Small errors: the gradient is w^power delta; the memory itself hands out ones."""
    memory, agent_class = inside.variant(module, place, 1e-3)
    with mock.patch.object(module, "ReplayMemory", memory):
        agent, beta = fill(agent_class)
    full = np.flatnonzero(agent.memory.tree[np.arange(64)])
    agent.memory.tree[full] = np.random.default_rng(1).random(len(full)) + 0.1
    batch = agent.memory.sample(8, *beta)
    weight = torch.from_numpy(agent.memory.true_weights).float()
    assert (batch.weight == 1).all() and weight.max() == 1 and weight.min() < 0.9
    delta = torch.linspace(-0.9, 0.9, 8)
    q = torch.zeros(8, requires_grad=True)
    agent.loss(q, delta, reduction="none").sum().backward()
    torch.testing.assert_close(q.grad, -(weight**power) * delta)
    assert agent.learn() > 0 and isinstance(agent.optimizer, inside.RMSProp)


def test_an_arm_writes_what_it_learned_and_plays(tmp_path, monkeypatch):
    monkeypatch.setattr(
        breakout_arms.script, "Config", partial(breakout_arms.script.Config, learn_start=256)
    )
    for arm in ("rmsprop_inside", "dueling"):
        breakout_arms.train(arm, 1, 400, tmp_path / f"{arm}_1")
        saved = torch.load(tmp_path / f"{arm}_1" / "checkpoint.pth")
        assert ("mean_square" in saved["optimizer"]["state"][0]) == arm.startswith("rmsprop")
        line = pandas.read_csv(tmp_path / f"{arm}_1" / "history.csv").iloc[-1]
        assert (line.arm, line.seed) == (arm, 1) and line.env_steps >= 400 and line.loss > 0
    breakout_arms.train("rmsprop_inside", 1, 800, tmp_path / "rmsprop_inside_1")  # goes on
    first, second = pandas.read_csv(tmp_path / "rmsprop_inside_1" / "history.csv").env_steps
    assert 400 <= first < 800 <= second
    monkeypatch.setattr(breakout_arms, "GAMES", 2)
    scores = breakout_arms.play(tmp_path / "dueling_1")
    assert list(scores.arm) == ["dueling"] * 2 and list(scores.game) == [1, 2]
    monkeypatch.setattr(breakout_arms, "FOLDER", tmp_path)
    for games in 2, 1:
        breakout_arms.add("arms_scores", scores.assign(seed=games).head(games))
    breakout_arms.add("arms_scores", scores.assign(seed=1, score=7).head(1))
    kept = pandas.read_csv(tmp_path / "arms_scores.csv")
    assert list(kept.seed) == [2, 2, 1] and kept.score.iloc[-1] == 7
