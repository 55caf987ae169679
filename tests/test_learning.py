"""Learning itself: every script solves its task on every seed tried, and its greedy policy holds."""

import pytest
from conftest import CARTPOLE_NAMES

NAMES = CARTPOLE_NAMES


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_script_solves_cartpole(script, seed):
    config = script.Config(seed=seed)
    agent, history = script.train(config)
    assert history[-1].solved
    if script.SCRIPT == "a2c_cartpole":
        assert history[-1].standing == 32 and history[-1].steps >= 195
    else:
        assert all(row.steps >= 195 for row in history[-10:])
    assert script.evaluate(agent, config, seed=2**32 + seed).mean() >= 195


@pytest.mark.parametrize("name", NAMES)
def test_500_steps_the_whole_command(name, run, tmp_path):
    status, out, err = run(name, "--max-steps", 500, "--no-media")
    assert (status, err) == (0, "") and "Solved after" in out and "max 500 steps" in out


def test_a_network_that_cannot_learn_is_not_called_solved(script):
    _, history = script.train(script.Config(learning_rate=0, episodes=60))
    assert not any(row.solved for row in history)
