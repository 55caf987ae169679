"""The arithmetic of importance weights in docs/per_ablation.md."""

import pytest
import torch

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
