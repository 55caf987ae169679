"""The benchmarks of the articles' settings, the grid world and Breakout's seeds measure what they say."""

import importlib

import article_port
import articles
import breakout_seeds
import compare
import grid  # puts extras/ on the path
import gridworld
import numpy as np
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


def test_an_evaluation_has_the_limit_it_is_told():
    agent = dqn_cartpole.Agent(dqn_cartpole.Config(), 4, 2)
    agent.greedy = lambda state: (state[:, 2] + state[:, 3] > 0).astype(int)  # stands for long
    result = {"solved": True, "episodes": 1, "curve": [(1, 1)], "max_target": None}
    result["train_seconds"] = 1.0
    assert seeds.line("x", 0, agent, result)["evaluation_mean"] <= 200
    assert seeds.line("x", 0, agent, result, 500)["evaluation_mean"] > 200


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


def test_a_port_is_evaluated_greedily(monkeypatch):
    monkeypatch.setattr(article_port, "EPISODES", 2)
    agent, result = seeds.train("port", "per", 0)
    assert (result["solved"], result["max_target"], result["episodes"]) == (False, None, 2)
    assert seeds.line("per_port", 0, agent, result)["evaluation_mean"] < 200


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


def test_bricks_are_counted_from_a_reward():
    rewards, bricks = [0, 1, 4, 7, 8, 11, 14, 2], [0, 1, 1, 1, 2, 2, 2, 2]
    assert breakout_seeds.bricks(np.array(rewards)).tolist() == bricks


def trained(agent_class, steps=120):
    config = a2c_breakout.Config(num_envs=2, steps=steps, max_grad_norm=1e-6)
    return a2c_breakout.train(config, agent_class(config))[0]


def test_a_watched_agent_learns_the_same_and_notes_what_it_saw(tmp_path, monkeypatch):
    monkeypatch.setattr(breakout_seeds.WatchedAgent, "path", tmp_path / "updates.csv")
    monkeypatch.setattr(breakout_seeds, "EVERY", 5)
    pandas.DataFrame(columns=breakout_seeds.UPDATES).to_csv(tmp_path / "updates.csv", index=False)
    agent = trained(breakout_seeds.WatchedAgent)
    plain = trained(a2c_breakout.Agent).network.state_dict()
    assert all(torch.equal(plain[k], v) for k, v in agent.network.state_dict().items())
    rows = pandas.read_csv(tmp_path / "updates.csv")
    assert rows.env_steps.tolist() == [50, 100]
    assert (rows.norm > 1e-4).all()  # as it was before it was clipped
    assert rows.entropy.between(1.3, 1.3863).all() and (rows.error > 0).all()
    assert rows.no_ball.between(0, 1).all()


def test_a_resumed_training_forgets_what_came_after_the_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(breakout_seeds, "EVERY", 5)
    monkeypatch.setattr(breakout_seeds.signal, "signal", lambda *_: None)
    settings = ["--num-envs", "2", "--games", "1", "--max-frames", "100"]
    breakout_seeds.train(tmp_path, [*settings, "--steps", "70"])
    with open(tmp_path / "updates.csv", "a") as file:
        file.write("80,1,1,1,1\n")
    breakout_seeds.train(tmp_path, ["--steps", "120"])
    rows = pandas.read_csv(tmp_path / "updates.csv")
    assert rows.env_steps.tolist() == [50, 120]


def test_a_ball_is_seen_only_after_fire():
    games, fire = a2c_breakout.Games(2, 0, 18_000, fire=False), np.array([1, 0])
    assert not breakout_seeds.ball(games.state).any()
    for _ in range(12):
        games.step(fire)
    assert breakout_seeds.ball(games.state).any(1).tolist() == [True, False]


@pytest.mark.parametrize("other", [["--gamma", "0.5"], ["--no-fire"], ["--slow-first-layer"]])
def test_other_settings_do_not_go_on_in_the_defaults_folder(other, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["breakout_seeds.py", "train", *other])
    monkeypatch.setattr(breakout_seeds, "train", lambda *_: pytest.fail("trained"))
    with pytest.raises(SystemExit) as end:
        breakout_seeds.main()
    assert end.value.code == 2 and "--output-dir" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_game_is_played_as_by_the_script(monkeypatch):
    config = a2c_breakout.Config(games=1, max_frames=900)
    agent = a2c_breakout.Agent(config)
    weights = articles.PAGES.parents[1] / "weights" / "a2c_breakout.pth"
    a2c_breakout.load_weights(agent, weights)
    monkeypatch.setattr(breakout_seeds, "FIVE_MINUTES", 500)
    game = breakout_seeds.play(agent, 0, 1, 900).iloc[0]
    assert game.score == a2c_breakout.play(agent, config)[0][1] > game.five_minutes
    config.max_frames = 500
    assert game.five_minutes == a2c_breakout.play(agent, config)[0][1] > 0
    assert 900 / 4 - 8 < game.steps <= 900 / 4 and 1 <= game.lives <= 5
    assert game.bricks <= game.score and np.isnan(game.step_98)
    assert game.no_ball < 50
    monkeypatch.setattr(agent, "act", lambda state: np.zeros(len(state), int))  # never FIRE
    agent.config.fire = False
    still = breakout_seeds.play(agent, 0, 1, 900).iloc[0]
    assert still.no_ball == still.steps and (still.score, still.lives) == (0, 5)


class ScriptedGames:
    """Two games: a brick a step; the first ends after 120 steps, the second after 50."""

    def __init__(self, *_):
        self.state, self.lives, self.played = np.zeros((2, 4, 84, 84)), np.array([3, 0]), 0
        self.env = self

    def step(self, action):
        self.played += 1
        self.info = {"episode_frame_number": np.full(2, 4 * self.played)}
        self.ended = np.array([self.played >= 120, self.played >= 50])
        return (np.ones(2, np.float32),)


def test_the_steps_at_which_bricks_are_gone(monkeypatch):
    monkeypatch.setattr(a2c_breakout, "Games", ScriptedGames)
    monkeypatch.setattr(breakout_seeds, "KeptEnv", lambda env: env)
    monkeypatch.setattr(breakout_seeds, "FIVE_MINUTES", 160)
    agent = a2c_breakout.Agent(a2c_breakout.Config())
    agent.act = lambda state: np.zeros(len(state), int)
    table = breakout_seeds.play(agent, 0, 2)
    assert table.steps.tolist() == table.score.tolist() == table.bricks.tolist() == [120, 50]
    assert table.step_98[0] == 98 and table.step_108[0] == 108
    assert table[["step_98", "step_108"]].iloc[1].isna().all()
    assert table.lives.tolist() == [3, 0]
    assert table.five_minutes.tolist() == [40, 40]  # the step that reaches the limit counts


def test_folders_are_collected_and_what_was_there_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(breakout_seeds, "RESULTS", tmp_path)
    for name in "gamma_0.9_seed_0", "seed_0":
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        (folder / "games.csv").write_text("game,score\n1,7\n")
        (folder / "history.csv").write_text("env_steps,games,mean\n160,1,2.0\n320,2,3.0\n")
        (folder / "updates.csv").write_text("env_steps,error,entropy,norm\n150,1,2,3\n310,4,5,6\n")
    breakout_seeds.collect((tmp_path / "runs").glob("*/"))
    (tmp_path / "runs" / "seed_0" / "games.csv").write_text("game,score\n1,8\n")
    breakout_seeds.collect([tmp_path / "runs" / "seed_0"])
    games, history = (pandas.read_csv(tmp_path / f"breakout_{n}.csv") for n in ("games", "seeds"))
    assert dict(zip(games.run, games.score, strict=True)) == {"gamma_0.9_seed_0": 7, "seed_0": 8}
    rows = history[history.run == "seed_0"]
    assert rows[["mean", "norm"]].to_numpy().tolist() == [[2, 3], [3, 6]] and len(history) == 4


def test_what_a_network_claims_and_the_return_that_follows():
    """Pushed always to one side, the pole falls after 8 to 10 steps; at the limit nothing is paid."""
    agent = dqn_cartpole.Agent(dqn_cartpole.Config(gamma=0.9), 4, 2)
    torch.nn.init.zeros_(agent.q_network.q.weight)
    agent.q_network.q.bias.data = torch.tensor([0.25, -1.0])
    claimed, value = compare.look(agent, 0)
    assert claimed == 0.25 and -(0.9**7) <= value <= -(0.9**9)
    agent.greedy = lambda state: (state[:, 2] + state[:, 3] > 0).astype(int)  # never falls
    assert compare.look(agent, 0) == (0.25, 0.0)
