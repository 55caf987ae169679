"""Learning itself: every script solves its task on every seed tried, and its policy holds."""

import pytest
from conftest import CARTPOLE_NAMES

NAMES = CARTPOLE_NAMES


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_script_solves_cartpole(script, seed):
    config = script.Config(seed=seed)
    agent, history = script.train(config)
    assert history[-1].full_in_a_row >= 20
    assert script.evaluate(agent, config, seed=2**32 + seed).mean() >= 195


@pytest.mark.parametrize("name", NAMES)
def test_500_steps_the_whole_command(name, run):
    status, out, err = run(name, "--max-steps", 500, "--no-media")
    assert (status, err) == (0, "") and "Solved after" in out and "to 500 steps" in out


def test_a_network_that_cannot_learn_is_not_called_solved(script):
    limit = {"steps": 5000} if script.SCRIPT == "a2c_cartpole" else {"episodes": 60}
    _, history = script.train(script.Config(learning_rate=0, **limit))
    assert max(row.full_in_a_row for row in history) < 20
