"""The benchmarks of the articles' settings, the grid world and Breakout's games measure what they say."""

import importlib
import sys

import article_port
import articles
import breakout as breakout_speed
import breakout_games
import breakout_steps
import compare
import grid  # puts extras/ on the path
import gridworld
import numpy as np
import own_limit
import pandas
import pytest
import seeds
import tables
import torch

import a2c_breakout
import dqn_cartpole

PAGES = {"a2c", "ddqn", "dezero", "dqn", "dueling", "keras_per", "korean_per", "per"}


def test_the_articles_settings_are_those_of_the_scripts():
    commands = articles.commands()
    assert set(commands) == PAGES
    for name, settings in commands.values():
        module = importlib.import_module(f"{name.removesuffix('_dueling')}_cartpole")
        config = module.Config(**settings)
        assert all(getattr(config, key) == value for key, value in settings.items())
    assert commands["dezero"][1]["max_steps"] == 500
    assert commands["korean_per"] == ("per_dueling", commands["per"][1])


UNKNOWN = {"max_target": None, "train_seconds": 1.0}


def long_lived():
    """An agent of DQN that stands for long, by a rule."""
    agent = dqn_cartpole.Agent(dqn_cartpole.Config(), 4, 2)
    agent.greedy = lambda state: (state[:, 2] + state[:, 3] > 0).astype(int)
    return agent


def test_an_evaluation_has_the_limit_it_is_told():
    result = {"solved": True, "episodes": 1, "curve": [(1, 1)]} | UNKNOWN
    assert seeds.line("x", 0, long_lived(), result)["evaluation_mean"] <= 200
    assert seeds.line("x", 0, long_lived(), result, 500)["evaluation_mean"] > 200


def test_largest_targets_are_noted_and_nothing_else_changes(monkeypatch):
    targets = []
    td_target = dqn_cartpole.Agent.td_target

    def noted(agent, batch):
        targets.append(td_target(agent, batch).tolist())
        return td_target(agent, batch)

    agent, result = seeds.train_script("dqn", 3, episodes=12)
    monkeypatch.setattr(dqn_cartpole.Agent, "td_target", noted)
    plain, history = dqn_cartpole.train(dqn_cartpole.Config(seed=3, episodes=12))
    for name, weights in plain.q_network.state_dict().items():
        assert torch.equal(weights, agent.q_network.state_dict()[name])
    assert result["max_target"] == np.max(targets) > np.mean(targets)
    assert result["curve"] == [(row.steps, row.env_steps) for row in history]
    assert (result["solved"], result["episodes"]) == (False, 12) and result["train_seconds"] > 0
    row = seeds.line("dqn_cartpole", 3, agent, result)
    assert list(row) == list(seeds.read("seeds"))
    assert row["env_steps"] == plain.memory.pushed and row["max_target"] < 1


@pytest.mark.parametrize("name", ["dqn", "per_dueling", "a2c"])
def test_a_script_is_solved_by_its_own_rule(name):
    agent, result = seeds.train_script(name, 1, max_steps=40, solved_after=3)
    assert result["solved"]
    assert (result["max_target"] is None) == (name == "a2c")
    if name != "a2c":
        assert (name == "per_dueling") == hasattr(agent.q_network, "value")
    _, result = seeds.train_script(name, 0, **({"steps": 80} if name == "a2c" else {"episodes": 2}))
    assert not result["solved"]


def test_every_agent_is_evaluated_with_the_environments_own_limit(monkeypatch):
    trained = []

    def train(name, seed, **settings):
        trained.append(settings)
        return long_lived(), {"solved": True, "episodes": 1, "curve": [(1, 1)]} | UNKNOWN

    monkeypatch.setattr(own_limit, "train_script", train)
    for program in own_limit.PROGRAMS:
        (row,) = own_limit.work((program, 1)).values()
        assert row["program"] == program and 200 < row["evaluation_mean"] <= 500
    assert trained == [{}, {"max_steps": 500}] * 5


def test_a_port_is_evaluated_greedily(monkeypatch):
    monkeypatch.setattr(article_port, "EPISODES", 2)
    agent, result = seeds.train("port", "per", 0)
    assert (result["solved"], result["max_target"], result["episodes"]) == (False, None, 2)
    states = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    q = agent.main(torch.from_numpy(states)).detach().numpy()
    assert np.array_equal(agent.greedy(states), q.argmax(1)) and len(set(q.argmax(1))) == 2


def test_the_column_of_largest_targets_is_there_once_it_is_measured():
    line = {"solved": 1, "episodes": 5, "env_steps": 50, "train_seconds": 1.0}
    line |= {"evaluation_mean": 200.0}
    rows = pandas.DataFrame([line | {"max_target": 0.5}, line | {"max_target": 0.75}])
    table = tables.seeds({"new": rows, "old": rows.assign(max_target=np.nan)})
    assert list(table["largest target"]) == ["0.62 (0.75; 0.75)", ""]
    assert "largest target" not in tables.seeds({"old": rows.assign(max_target=np.nan)})


def test_the_greedy_way_through_the_grid_is_walked():
    q = gridworld.optimal(0.9)
    assert grid.steps(q) == 5
    assert grid.steps({place: np.zeros(4) for place in q}) is None


@pytest.mark.slow
def test_the_network_alone_can_be_measured(monkeypatch):
    monkeypatch.setattr(breakout_speed, "WARM_UP", 0)
    assert breakout_speed.network(bfloat16=0, steps=320)["speed"] > 0


def test_a_game_is_played_as_by_the_script(monkeypatch):
    config = a2c_breakout.Config(games=1, max_frames=900)
    agent = a2c_breakout.Agent(config)
    a2c_breakout.load_weights(agent, articles.ROOT / "weights" / "a2c_breakout.pth")
    monkeypatch.setattr(breakout_games, "FIVE_MINUTES", 100)
    game = breakout_games.play(agent, 0, 1, 900).iloc[0]
    assert game.score == a2c_breakout.play(agent, config)[0][1] > game.five_minutes > 0
    assert 900 / 4 - 8 < game.steps <= 900 / 4 and 1 <= game.lives <= 5


class ScriptedGames:
    """Two games: a point a step; the first ends after 120 steps, the second after 50."""

    def __init__(self, *_):
        self.state = np.zeros((2, 4, 84, 84))
        self.lives = np.array([3, 0])
        self.score = np.zeros(2, int)
        self.idle = np.zeros(2, int)

    def step(self, action):
        self.score = self.score + 1
        self.ended = self.score >= [120, 50]


def test_scores_stop_where_a_game_ends(monkeypatch):
    monkeypatch.setattr(a2c_breakout, "Games", ScriptedGames)
    monkeypatch.setattr(breakout_games, "FIVE_MINUTES", 40)
    agent = a2c_breakout.Agent(a2c_breakout.Config())
    agent.act = lambda state, idle: np.zeros(len(state), int)
    table = breakout_games.play(agent, 0, 2)
    assert table.steps.tolist() == table.score.tolist() == [120, 50]
    assert table.lives.tolist() == [3, 0]
    assert table.five_minutes.tolist() == [40, 40]  # the step that reaches the limit counts


def test_games_are_kept_with_limit_temperature_and_patience(tmp_path, monkeypatch):
    """Half an hour and five minutes in tables of their own; without a history, too."""
    played = []

    def play(agent, seed, games, limit):
        config = agent.config
        played.append((config.temperature, config.patience, seed, games, limit))
        return pandas.DataFrame({"game": [1], "score": [5]})

    monkeypatch.setattr(breakout_games, "FOLDER", tmp_path)
    monkeypatch.setattr(breakout_games, "play", play)
    run = tmp_path / "run_3"
    run.mkdir()
    weights = articles.ROOT / "weights" / "a2c_breakout.pth"
    (run / "weights.pth").write_bytes(weights.read_bytes())
    line = ["breakout_games.py", str(run), "--seed=3"]
    other = ["--temperature=0.05", "--patience=9", "--games=4", "--five-minutes"]
    for arguments in ([], other):
        monkeypatch.setattr(sys, "argv", line + arguments)
        breakout_games.main()
    assert played == [(0.7, 500, 3, 100, 108_000), (0.05, 9, 3, 4, 18_000)]
    kept = {path.stem: path.read_text().splitlines()[1] for path in tmp_path.glob("*.csv")}
    assert kept == {
        "breakout_games": "1,5,run_3_temperature_0.7",
        "breakout_temperature": "1,5,run_3_temperature_0.05_patience_9",
    }


def test_a_run_is_kept_in_place_of_what_was_there_of_it(tmp_path, monkeypatch):
    monkeypatch.setattr(breakout_games, "FOLDER", tmp_path)
    (tmp_path / "table.csv").write_text("run,game,score,bricks\na,1,7,3\nb,1,8,4\n")
    breakout_games.keep("table", "a", pandas.DataFrame({"game": [1, 2], "score": [5, 6]}))
    kept = (tmp_path / "table.csv").read_text()
    assert kept == "run,game,score,bricks\nb,1,8,4\na,1,5,\na,2,6,\n"


def test_what_a_network_claims_and_the_return_that_follows():
    """Pushed always to one side, the pole falls after 8 to 10 steps; at the limit nothing is paid."""
    agent = dqn_cartpole.Agent(dqn_cartpole.Config(gamma=0.9), 4, 2)
    torch.nn.init.zeros_(agent.q_network.q.weight)
    agent.q_network.q.bias.data = torch.tensor([0.25, -1.0])
    claimed, value = compare.look(agent, 0)
    assert claimed == 0.25 and -(0.9**7) <= value <= -(0.9**9)
    agent.greedy = lambda state: (state[:, 2] + state[:, 3] > 0).astype(int)  # never falls
    assert compare.look(agent, 0) == (0.25, 0.0)


def test_an_update_moves_the_policy_as_far_as_its_alpha_lets_it(monkeypatch, tmp_path):
    """The same rollouts with two alphas, and with a rate of 0."""

    def states(agent, games):
        return torch.from_numpy(games.state.copy())

    monkeypatch.setattr(breakout_steps, "probes", states)
    for rate in (1e-3, 0.0):
        config = a2c_breakout.Config(num_envs=3, steps=2000, learning_rate=rate)
        agent = a2c_breakout.Agent(config)
        progress = a2c_breakout.Progress(env_steps=1000)
        a2c_breakout.save_checkpoint(tmp_path / f"{rate}.pth", agent, progress)
    run, far = breakout_steps.follow(tmp_path / "0.001.pth", 0.99, 4, 2)
    assert run == "0.00 million steps, alpha 0.99, seed 4"
    _, near = breakout_steps.follow(tmp_path / "0.001.pth", 0.5, 4, 2)
    _, still = breakout_steps.follow(tmp_path / "0.0.pth", 0.5, 4, 2)
    # The first gradient g moves a weight by rate * g / sqrt((1 - alpha) g^2)
    assert float(far.kl[0]) > 5 * float(near.kl[0]) > 0
    assert still.kl.astype(float).tolist() == [0, 0]
