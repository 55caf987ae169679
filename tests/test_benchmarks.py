"""The benchmarks of the articles' settings, the grid world and Breakout's seeds measure what they say."""

import importlib

import articles
import breakout_seeds
import breakout_steps
import divergence
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
import per_cartpole

PAGES = {"a2c", "ddqn", "dezero", "dqn", "dueling", "keras_per", "korean_per", "per"}


def test_the_articles_settings_are_those_of_the_scripts():
    commands = articles.commands()
    assert set(commands) == PAGES
    for name, settings in commands.values():
        module = importlib.import_module(f"{name.removesuffix('_dueling')}_cartpole")
        module.Config(**settings)
    assert commands["dezero"][1]["max_steps"] == 500
    assert commands["korean_per"] == ("per_dueling", commands["per"][1])


def test_an_evaluation_has_the_limit_it_is_told():
    agent = dqn_cartpole.Agent(dqn_cartpole.Config(), 4, 2)
    agent.act = lambda state: (state[:, 2] + state[:, 3] > 0).astype(int)  # stands for long
    result = {"solved": True, "episodes": 1, "curve": [(1, 1)], "ten_in_a_row": 1}
    result["train_seconds"] = 1.0
    assert seeds.line("x", 0, agent, result)["evaluation_mean"] <= 200
    assert seeds.line("x", 0, agent, result, 500)["evaluation_mean"] > 200


def test_the_greedy_way_through_the_grid_is_walked():
    q = gridworld.optimal(0.9)
    assert grid.steps(q) == 5
    assert grid.steps({place: np.zeros(4) for place in q}) is None


def test_bricks_are_counted_from_a_reward():
    rewards, bricks = [0, 1, 4, 7, 8, 11, 14, 2], [0, 1, 1, 1, 2, 2, 2, 2]
    assert breakout_seeds.bricks(np.array(rewards)).tolist() == bricks


def trained(agent_class, steps=120):
    config = a2c_breakout.Config(num_envs=2, steps=steps, max_grad_norm=1e-6)
    agent, _ = a2c_breakout.train(config, agent_class(config))
    return agent


def test_a_watched_agent_learns_the_same_and_notes_what_it_saw(tmp_path, monkeypatch):
    monkeypatch.setattr(breakout_seeds.WatchedAgent, "path", tmp_path / "updates.csv")
    monkeypatch.setattr(breakout_seeds, "EVERY", 5)
    pandas.DataFrame(columns=breakout_seeds.UPDATES).to_csv(tmp_path / "updates.csv", index=False)
    agent = trained(breakout_seeds.WatchedAgent)
    plain = trained(a2c_breakout.Agent).network.state_dict()
    assert all(torch.equal(plain[k], v) for k, v in agent.network.state_dict().items())
    rows = pandas.read_csv(tmp_path / "updates.csv")
    # learn() is called before the steps of its rollout are counted
    assert rows.env_steps.tolist() == [40, 90]
    assert (rows.norm > 1e-4).all()  # as it was before it was clipped
    assert rows.entropy.between(1.3, 1.3863).all() and (rows.error > 0).all()
    assert rows.no_ball.between(0, 1).all()
    early = trained(a2c_breakout.Agent, 50).checkpoint()
    agent.restore(early)
    assert pandas.read_csv(tmp_path / "updates.csv").env_steps.tolist() == [40]


def test_a_ball_is_seen_only_after_fire():
    games, fire = a2c_breakout.Games(2, 0, 18_000, fire=0), np.array([1, 0])
    assert not breakout_seeds.ball(games.state).any()
    for _ in range(12):
        games.step(fire)
    assert breakout_seeds.ball(games.state).any(1).tolist() == [True, False]


@pytest.mark.parametrize("other", [["--gamma", "0.5"], ["--fire", "0"], ["--slow-first-layer"]])
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
    config.mode, config.media = "play", False
    agent = a2c_breakout.Agent(config)
    weights = articles.PAGES.parents[1] / "weights" / "a2c_breakout.pth"
    a2c_breakout.load(weights, agent.network.load_state_dict)
    monkeypatch.setattr(breakout_seeds, "FIVE_MINUTES", 500)
    game = breakout_seeds.play(agent, 0, 1, 900).iloc[0]
    assert game.score == a2c_breakout.play(agent, config)[0]["mean"] > game.five_minutes
    config.max_frames = 500
    assert game.five_minutes == a2c_breakout.play(agent, config)[0]["mean"] > 0
    assert 900 / 4 - 8 < game.steps <= 900 / 4 and 1 <= game.lives <= 5
    assert game.bricks <= game.score and np.isnan(game.step_98)
    assert game.no_ball < 50
    monkeypatch.setattr(agent, "act", lambda state: np.zeros(len(state), int))  # never FIRE
    agent.config.fire = 0
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


def filled(variant):
    """An agent with 70 transitions, drawn with priorities from 1 to 70, and one thing changed."""
    agent = per_cartpole.Agent(per_cartpole.Config(), 4, 2)
    for i in range(70):
        agent.memory.push(np.zeros(4), 0, 0.0, np.zeros(4), False)
        agent.memory.tree[i] = i + 1.0
    divergence.change(agent, variant)
    return agent


def test_one_thing_is_changed():
    index = np.array([0, 69])
    assert filled("as it is").memory.weights(index)[1] < 0.5
    assert (filled("no importance weights").memory.weights(index) == 1).all()
    uniform = filled("uniform replay").memory
    assert (uniform.tree[np.arange(70)] == 1).all() and (uniform.weights(index) == 1).all()
    clipped, whole = filled("TD errors clipped to 1").memory, filled("as it is").memory
    for memory in clipped, whole:
        memory.update(index, np.array([-5.0, 0.5]))
    assert clipped.tree[0] == (1 + 1e-4) ** 0.6 < whole.tree[0]
    assert filled("learning rate 1e-3").optimizer.param_groups[0]["lr"] == 1e-3
    assert filled("eps of Adam 1e-4").optimizer.param_groups[0]["eps"] == 1e-4
    assert filled("tau 0.02").config.tau == 0.02
    assert filled("beta 1 from the start").memory.config.beta == 1


def test_a_training_is_stopped_and_goes_on(monkeypatch):
    monkeypatch.setattr(divergence, "START", 5)
    monkeypatch.setattr(divergence, "UPDATES", 40)
    agent = divergence.stopped(0)
    assert agent.updates == 5 and agent.memory.pushed == 69  # learns from 64 transitions on
    (row,) = divergence.work((0, "as it is", 0)).values()
    assert row["solved"] == 0 and abs(row["largest"]) < 1


def test_how_far_an_update_moves_the_policy(tmp_path, monkeypatch):
    monkeypatch.setattr(breakout_steps, "WAIT", (0, 5))
    path, saved = tmp_path / "checkpoint.pth", trained(a2c_breakout.Agent).checkpoint()
    saved["config"] |= {"max_grad_norm": 0.5, "learning_rate": 1e-4, "steps": 10_000}
    torch.save(saved, path)
    kl = {
        variant: breakout_steps.follow(path, variant, 2)
        for variant in ("as it is", "half the rate")
    }
    assert all(list(table["update"]) == [1, 2] and (table.kl > 0).all() for table in kl.values())
    assert kl["half the rate"].kl[0] == pytest.approx(kl["as it is"].kl[0] / 4, rel=0.2)
    alone = kl["as it is"][list(breakout_steps.LAYERS)]
    assert (alone > -torch.finfo(torch.float32).eps).all(axis=None)  # 0 but for rounding
    assert (alone.max(axis=1) > 0).all()
    # Looking at the layers one by one changes nothing; with all of them it is the whole step
    monkeypatch.setattr(breakout_steps, "LAYERS", ("",))
    again = breakout_steps.follow(path, "as it is", 2)
    assert again.kl.equals(kl["as it is"].kl) and again[""].equals(again.kl)


def test_one_thing_is_changed_in_an_update():
    before, after = {}, {}
    for kind in a2c_breakout.Agent, breakout_seeds.SlowWatchedAgent:
        agent = kind(a2c_breakout.Config(num_envs=2, clip_rewards=0))
        games, storage = a2c_breakout.Games(2, 0, 18_000), a2c_breakout.RolloutStorage()
        before[kind] = {k: v.clone() for k, v in agent.network.state_dict().items()}
        breakout_steps.collect(agent, games, 5, storage)
        agent.learn(storage.take(), games.state)
        after[kind] = agent.network.state_dict()
    (old, slow_old), (new, slow_new) = before.values(), after.values()
    for name in old:
        share = 0.1 if name.startswith("conv.0") else 1
        assert torch.equal(old[name], slow_old[name])
        moved, slow_moved = new[name] - old[name], slow_new[name] - slow_old[name]
        torch.testing.assert_close(slow_moved, share * moved, rtol=1e-3, atol=1e-7)
    errors = torch.tensor([0.5, -1.0, 3.0], requires_grad=True)
    assert breakout_steps.twice_huber(errors).tolist() == [0.25, 1.0, 5.0]
    assert isinstance(breakout_steps.Huber(agent.config).optimizer, torch.optim.RMSprop)
    adam = breakout_steps.WithAdam(agent.config)
    adam.restore(agent.checkpoint())
    assert isinstance(adam.optimizer, torch.optim.Adam)


def test_an_arm_that_was_stopped_has_no_score_at_later_steps():
    lines = [("a", 0, k * 16_000, k) for k in range(1, 64)] + [("b", 1, 250_001, 7.0)]
    history = pandas.DataFrame(lines, columns=["arm", "seed", "env_steps", "mean"])
    scores = pandas.DataFrame({"arm": [*"aabb"], "seed": [0, 0, 1, 1], "score": [3, 5, 1, 2]})
    table = tables.arms({"a": "A", "b": "B"}, history, scores)
    assert list(table.loc["A, seed 0"]) == ["15.0", "31.0", "46.0", "62.0", "4.0 (3 to 5)"]
    assert list(table.loc["B, seed 1"]) == ["7.0", "", "", "", "1.5 (1 to 2)"]
