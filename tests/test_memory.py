"""The replay memories and the sum tree against brute force, formulas and statistics."""

import numpy as np
import pytest
import torch
from conftest import scripts
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import per_cartpole as per


def fill(memory, count):
    """Pushes `count` transitions whose every number tells which one it is."""
    for i in range(count):
        memory.push(
            state=np.full(4, i, np.float32),
            action=i % 2,
            reward=-i,
            next_state=np.full(4, i + 0.5, np.float32),
            terminated=i % 3 == 0,
        )


@pytest.mark.parametrize("count", [5, 8, 21])
@scripts("dqn_cartpole", "per_cartpole")
def test_memory_keeps_the_last_transitions_whole(script, count):
    memory = script.ReplayMemory(script.Config(memory_size=8, batch_size=8), 4)
    fill(memory, count)
    torch.manual_seed(0)
    batch = memory.sample(200)
    assert len(memory) == min(count, 8)
    assert [tuple(x.shape) for x in batch[:5]] == [(200, 4), (200, 1), (200,), (200, 4), (200,)]
    drawn = batch.state[:, 0]
    assert set(drawn.tolist()) == set(range(max(0, count - 8), count))
    assert torch.equal(batch.state, drawn[:, None].expand(-1, 4))
    assert torch.equal(batch.action[:, 0], drawn.long() % 2)
    assert torch.equal(batch.reward, -drawn)
    assert torch.equal(batch.next_state, batch.state + 0.5)
    assert torch.equal(batch.terminated, (drawn % 3 == 0).float())
    assert all(x.dtype == torch.float32 for x in batch[:5] if x is not batch.action)
    assert memory.capacity == 8 and memory.pushed == count


@scripts("dqn_cartpole", "per_cartpole")
def test_uniform_memories_draw_uniformly(script):
    memory = script.ReplayMemory(script.Config(), 4)
    fill(memory, 20)
    torch.manual_seed(0)
    counts = np.bincount(memory.sample(20_000).state[:, 0].int(), minlength=20)
    # stratified draws from equal priorities are more even than chance: no lower bound on the statistic
    assert stats.chisquare(counts).pvalue > 1e-4


@settings(deadline=None, max_examples=200)
@given(st.data(), st.integers(1, 33))
def test_sum_tree_against_brute_force(data, capacity):
    tree = per.SumTree(capacity)
    leaves = np.zeros(capacity)
    priority = st.floats(1e-12, 1e6)
    filled = data.draw(st.integers(1, capacity))
    for leaf in range(filled):
        leaves[leaf] = data.draw(priority)
        tree[leaf] = leaves[leaf]
    for _ in range(data.draw(st.integers(0, 6))):  # as replay does: many at once, some twice
        batch = np.array(data.draw(st.lists(st.integers(0, filled - 1), min_size=1, max_size=8)))
        leaves[batch] = [data.draw(priority) for _ in batch]
        tree[batch] = leaves[batch]
    first = tree.first_leaf
    assert np.array_equal(tree[np.arange(capacity)], leaves)
    assert np.array_equal(tree.nodes[1:first], tree.nodes[2::2] + tree.nodes[3::2])
    assert np.isclose(tree.total(), leaves.sum(), rtol=1e-12)
    shares = data.draw(st.lists(st.floats(0, 1), min_size=1, max_size=8))
    values = np.array(shares) * tree.total()
    found = tree.find(values)
    assert (found < filled).all()  # never an empty leaf
    ends = np.cumsum(leaves)
    slack = 1e-9 * leaves.sum()
    assert (values <= ends[found] + slack).all()
    assert (values >= ends[found] - leaves[found] - slack).all()


def prioritized(priorities, **config):
    """A memory that holds one transition a priority."""
    memory = per.ReplayMemory(per.Config(memory_size=64, batch_size=16, **config), 4)
    fill(memory, len(priorities))
    memory.tree[np.arange(len(priorities))] = np.array(priorities, float)
    return memory


def test_frequencies_are_in_proportion_to_the_priorities():
    priorities = np.random.default_rng(0).random(37) ** 4 + 1e-3
    memory = prioritized(priorities)
    torch.manual_seed(0)
    # one draw a batch: draws that are stratified together would fit better than independent ones may
    drawn = np.concatenate([memory.draw(1) for _ in range(20_000)])
    counts = np.bincount(drawn, minlength=37)
    expected = 20_000 * priorities / priorities.sum()
    assert 1e-4 < stats.chisquare(counts, expected).pvalue < 1 - 1e-4


def test_draws_are_stratified():
    memory = prioritized(np.ones(64))
    torch.manual_seed(0)
    for _ in range(20):
        assert np.array_equal(memory.draw(64), np.arange(64))
        assert np.array_equal(memory.draw(32) // 2, np.arange(32))


def test_never_draws_an_empty_place(monkeypatch):
    memory = prioritized([1e-9, 1e9, 1e-9])
    torch.manual_seed(0)
    assert memory.draw(50_000).max() <= 2
    # the worst that rounding can do: a draw of the whole sum
    monkeypatch.setattr(torch, "rand", lambda size, dtype: torch.ones(size, dtype=dtype))
    assert memory.tree.find(memory.tree.nodes[1:2]).item() == 2
    assert memory.draw(10).max() == 2


@pytest.mark.parametrize("pushed, beta", [(10, 0.46), (50, 0.7), (100, 1.0), (150, 1.0)])
def test_importance_weights_are_the_formula(pushed, beta):
    memory = per.ReplayMemory(
        per.Config(memory_size=64, batch_size=16, beta=0.4, beta_steps=100), 4
    )
    fill(memory, pushed)
    n = min(pushed, 64)
    p = np.arange(n) % 7 + 1.0
    memory.tree[np.arange(n)] = p
    torch.manual_seed(0)
    batch = memory.sample(32)
    assert np.array_equal(batch.state[:, 0], memory.state[batch.index, 0])
    weight = (n * p[batch.index] / p.sum()) ** -beta
    assert batch.weight.dtype == torch.float32
    np.testing.assert_allclose(batch.weight, weight / weight.max(), rtol=1e-6)


def test_new_transitions_enter_at_the_largest_priority_so_far():
    config = per.Config(alpha=0.6, priority_epsilon=0.01, memory_size=8, batch_size=8)
    memory = per.ReplayMemory(config, 4)
    fill(memory, 2)
    assert memory.tree[np.arange(3)].tolist() == [1, 1, 0]
    memory.update_priorities(np.array([0, 1]), np.array([-3.0, 0.5]))
    np.testing.assert_allclose(memory.tree[np.arange(2)], [3.01**0.6, 0.51**0.6])
    memory.update_priorities(np.array([0]), np.array([0.0]))  # the largest so far stays
    fill(memory, 1)
    np.testing.assert_allclose(memory.tree[np.arange(3)], [0.01**0.6, 0.51**0.6, 3.01**0.6])


def test_alpha_0_is_uniform():
    memory = prioritized(np.ones(10), alpha=0.0)
    memory.update_priorities(np.arange(10), np.linspace(0, 5, 10))
    assert memory.tree[np.arange(10)].tolist() == [1] * 10
    assert memory.sample(32).weight.tolist() == [1] * 32


def test_uniform_steps_keep_all_priorities_equal():
    memory = prioritized(np.ones(20), uniform_steps=21)
    for pushed, equal in ((20, True), (21, False)):
        memory.pushed = pushed
        memory.update_priorities(np.arange(20), np.linspace(1, 5, 20))
        assert (memory.tree[np.arange(20)] == 1).all() == equal
