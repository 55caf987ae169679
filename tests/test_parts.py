"""The variants of benchmarks/parts.py do what they say."""

from unittest.mock import patch

import numpy as np
import parts
import torch

import a2c_cartpole
import dqn_cartpole
import per_cartpole


def test_the_limit_as_an_end_pays_and_ends():
    config = dqn_cartpole.Config(max_steps=5, episodes=3, solved_after=99)
    with (
        patch.object(dqn_cartpole.gym, "make", parts.make_ended),
        patch.object(dqn_cartpole, "ReplayMemory", parts.LimitIsAnEnd),
    ):
        agent, _ = dqn_cartpole.train(config)
    reward = agent.memory.reward[:15]
    assert reward.tolist() == agent.memory.terminated[:15].tolist() == [0, 0, 0, 0, 1] * 3


def filled(agent, n=70):
    rng = np.random.default_rng(0)
    for _ in range(n):
        agent.memory.push(rng.normal(size=4), 0, -1.0, rng.normal(size=4), False)
    return agent


def test_a_hard_copy_and_half_the_updates():
    agent = filled(parts.HardCopy(dqn_cartpole.Config(), 4, 2))
    before = agent.target_network.q.weight.clone()
    for _ in range(99):
        agent.learn()
    assert torch.equal(agent.target_network.q.weight, before)
    agent.learn()
    assert torch.equal(agent.target_network.q.weight, agent.q_network.q.weight)
    assert not torch.equal(agent.q_network.q.weight, before)
    agent = filled(parts.EverySecondStep(dqn_cartpole.Config(), 4, 2))
    assert [bool(np.isnan(agent.learn())) for _ in range(4)] == [True, False, True, False]


def test_the_masks_of_a2c():
    """Two steps of three games: one meets the limit, one falls, one only resets."""
    plain = a2c_cartpole.Agent(a2c_cartpole.Config(), 4, 2)
    zeros = torch.zeros(2, 3)
    first = torch.tensor([True, False])
    no = torch.zeros(2, 3, dtype=torch.bool)
    truncated, terminated, valid = no.clone(), no.clone(), ~no
    truncated[0, 0] = True
    terminated[0, 1] = True
    valid[:, 2] = ~first
    value = torch.full((2, 3), 0.5)
    rollout = a2c_cartpole.Rollout(zeros, zeros, value, zeros, terminated, truncated, valid)
    next_state = np.zeros((3, 4), np.float32)
    expected = plain.returns(rollout, next_state)
    cut = parts.CutAtLimit(plain.config, 4, 2)
    cut.network.load_state_dict(plain.network.state_dict())
    found = cut.returns(rollout, next_state)
    assert expected[0, 0] == 0.99 * 0.5 and found[0, 0] == 0
    expected[0, 0] = 0
    assert torch.equal(found, expected)
    seen = []
    unmasked = parts.Unmasked(plain.config, 4, 2)
    with patch.object(a2c_cartpole.Agent, "learn", lambda *arguments: seen.append(arguments[1])):
        unmasked.learn(rollout, next_state)
    assert seen[0].valid.all() and not rollout.valid.all()
    assert torch.equal(seen[0].terminated, terminated)


def test_draws_and_new_priorities():
    tree = parts.AnywhereTree(64)
    tree[np.arange(64)] = 1.0
    assert len(set(tree.find(np.zeros(100)))) > 30
    memory = parts.NewAsIfKnown(per_cartpole.Config(memory_size=8, batch_size=8), 4)
    for _ in range(9):
        memory.push(np.zeros(4), 0, 0.0, np.zeros(4), False)
    assert np.allclose(memory.tree[np.arange(8)], 1e-4**0.6)


def test_every_variant_names_what_is_there():
    for name, variants in parts.VARIANTS.items():
        script = {"dqn": dqn_cartpole, "a2c": a2c_cartpole, "per": per_cartpole}[name]
        for settings, replaced in variants.values():
            script.Config(**settings)
            for path in replaced:
                owner = script
                for part in path.split("."):
                    owner = getattr(owner, part)
    q, target = torch.tensor([1.0, 2.0]), torch.tensor([0.0, 4.0])
    assert parts.mean_squared(q, target) == 2.5
