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
    reward, terminated = (agent.memory.columns[i][:15] for i in (2, 4))
    assert reward.tolist() == terminated.tolist() == [0, 0, 0, 0, 1] * 3


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


def test_masks():
    zeros, yes = torch.zeros(3), torch.tensor([True, False, False])
    step = zeros, zeros, zeros, zeros, yes, ~yes, yes
    rollouts = {}
    for kind in (a2c_cartpole.RolloutStorage, parts.CutAtLimit, parts.Unmasked):
        storage = kind()
        storage.insert(*step)
        rollouts[kind] = storage.take()
    plain, cut, unmasked = rollouts.values()
    assert unmasked.valid.all() and torch.equal(unmasked.terminated, plain.terminated)
    assert cut.terminated.all() and not cut.truncated.any() and torch.equal(cut.valid, plain.valid)


def test_draws_and_new_priorities():
    tree = parts.AnywhereTree(64)
    tree[np.arange(64)] = 1.0
    assert len(set(tree.find(np.zeros(100)))) > 30
    memory = parts.NewAsIfKnown(per_cartpole.Config(memory_size=8), 4)
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
