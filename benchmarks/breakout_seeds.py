"""Trains a2c_breakout.py on a seed and notes what its history doesn't show; plays with what came of it.

    python benchmarks/breakout_seeds.py train [--seed 0] [--output-dir runs/seeds/seed_0] [--slow-first-layer] [SETTING ...]
    python benchmarks/breakout_seeds.py play [--seed 0] [--games 100] [--no-fire] [--max-frames 108000] [--output-dir DIR] [--weights FILE]
    python benchmarks/breakout_seeds.py collect [--output-dir runs/seeds]

`train` is `python a2c_breakout.py --seed SEED SETTING ...`, with `--resume` where the folder has a checkpoint. Beside the
script's own files it writes updates.csv: a line every 100 updates, with the means of the critic's squared error, of the
policy's entropy, of the gradient's length before it is clipped, and of the share of games in which no ball is between the wall
and the paddle in any of the last four pictures. With `--slow-first-layer` the first convolution learns at a tenth of the rate.

`play` plays whole games, by default 100 of at most 108,000 frames (half an hour), with weights.pth of the folder, or FILE, and writes
games.csv, a line a game: score; score after five minutes (18,000 frames); steps; lives left, none unless the limit cut the
game; bricks hit; at the end, steps since a ball was last seen between the wall and the paddle; and the steps at which 98 and
all 108 bricks of the first wall were gone, empty if never.

`collect` puts what all folders in a folder have into results/breakout_seeds.csv and results/breakout_games.csv.
"""

import argparse
import signal
import sys
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas
import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

import a2c_breakout as script

RESULTS = Path(__file__).parent / "results"
EVERY = 100  # updates in a line of updates.csv
GAMES = 100
LIMIT, FIVE_MINUTES, SKIP = 108_000, 18_000, 4  # frames
BALL = slice(40, 74), slice(5, 79)  # rows and columns of a picture between wall, paddle and sides
UPDATES = ["env_steps", "error", "entropy", "norm", "no_ball"]


def ball(state):
    """Whether a ball is between the wall and the paddle in each picture of states (N, 4, 84, 84)."""
    return state[:, :, BALL[0], BALL[1]].any((2, 3))


class SlowFirstLayer(script.Agent):
    """An Agent whose first layer moves a tenth as far."""

    def learn(self, rollout, next_state):
        """The script's update, nine tenths of which the first layer takes back."""
        first = list(self.network.conv[0].parameters())
        before = [parameter.detach().clone() for parameter in first]
        loss = super().learn(rollout, next_state)
        with torch.no_grad():
            for parameter, old in zip(first, before, strict=True):
                parameter.copy_(old + 0.1 * (parameter - old))
        return loss


class WatchedAgent(script.Agent):
    """An Agent that notes the parts of its updates in a file. What it learns is the same."""

    path = None
    env_steps = 0  # of the training, when it began in this process

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.seen = []

    def returns(self, rollout, next_state):
        """The script's returns; notes error and entropy on the way."""
        R, valid = super().returns(rollout, next_state), rollout.valid
        error = (R - rollout.value)[valid].square().mean().item()
        self.seen.append([error, rollout.entropy[valid].mean().item()])
        return R

    def learn(self, rollout, next_state):
        """The script's update; notes the gradient's length, and the games without a ball."""
        clip = script.nn.utils.clip_grad_norm_

        def noted(*arguments):
            self.seen[-1] += [clip(*arguments).item(), np.mean(~ball(next_state).any(1))]

        with patch.object(script.nn.utils, "clip_grad_norm_", noted):
            loss = super().learn(rollout, next_state)
        self.env_steps += rollout.valid.numel()
        if len(self.seen) == EVERY:
            row = pandas.DataFrame([[self.env_steps, *np.mean(self.seen, 0)]], columns=UPDATES)
            row.to_csv(self.path, mode="a", header=False, index=False, float_format="%.4f")
            self.seen = []
        return loss


class SlowWatchedAgent(SlowFirstLayer, WatchedAgent):
    """A WatchedAgent whose first layer moves a tenth as far."""


def train(folder, arguments, agent=WatchedAgent):
    """Trains the agent of a folder, or goes on, until SIGTERM or Ctrl-C at the latest."""
    folder.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    WatchedAgent.path = folder / "updates.csv"
    checkpoint = folder / "checkpoint.pth"
    resume = ["--resume"] if checkpoint.exists() else []
    WatchedAgent.env_steps = 0
    rows = pandas.DataFrame(columns=UPDATES)
    if resume:  # what was noted after the checkpoint goes
        progress = torch.load(checkpoint, weights_only=True)["progress"]
        WatchedAgent.env_steps = progress["env_steps"]
        rows = pandas.read_csv(WatchedAgent.path).reindex(columns=UPDATES)
        rows = rows[rows.env_steps <= WatchedAgent.env_steps]
    rows.to_csv(WatchedAgent.path, index=False)
    with patch.object(script, "Agent", agent):
        script.main([*arguments, "--output-dir", str(folder), "--no-media", *resume])


def bricks(reward):
    """Bricks behind the rewards of a step (N,): the fewest of 1, 4 and 7 points that make each."""
    fewest = [0]
    for points in range(1, 1 + max(reward)):
        fewest.append(1 + min(fewest[points - worth] for worth in (1, 4, 7) if worth <= points))
    return np.array(fewest)[reward]


class KeptEnv:
    """An environment that keeps the info of its latest step."""

    def __init__(self, env):
        self.env = env

    def step(self, action):
        """The environment's step."""
        *result, self.info = self.env.step(action)
        return *result, self.info


def play(agent, seed, num_games=GAMES, limit=LIMIT):
    """Plays whole games at once; returns a table with a line a game."""
    torch.manual_seed(seed)
    games = script.Games(num_games, seed, limit, agent.config.fire)
    games.env = KeptEnv(games.env)
    running, action = np.ones(num_games, bool), np.zeros(num_games, int)
    score, early, hit, steps, lives, no_ball = np.zeros((6, num_games), int)
    reached = {count: np.full(num_games, np.nan) for count in (98, 108)}  # bricks: at which step
    while running.any():
        action[running] = agent.act(games.state[running])
        reward = games.step(action)[0].astype(int) * running
        score, hit, steps = score + reward, hit + bricks(reward), steps + running
        five = running & (games.env.info["episode_frame_number"] - SKIP < FIVE_MINUTES)
        early[five], lives[running] = score[five], games.lives[running]
        no_ball[running] = np.where(ball(games.state)[:, -1], 0, no_ball + 1)[running]
        for count, step in reached.items():
            now = (hit >= count) & np.isnan(step)
            step[now] = steps[now]
        running &= ~games.ended
    columns = {"game": np.arange(num_games) + 1, "score": score, "five_minutes": early}
    columns |= {"steps": steps, "lives": lives, "bricks": hit, "no_ball": no_ball}
    columns |= {f"step_{count}": step for count, step in reached.items()}
    return pandas.DataFrame(columns)


def collect(folders):
    """Puts the folders' histories and games into results/, each line with its folder's name."""
    histories, games = [], []
    for folder in folders:
        if (folder / "updates.csv").exists():
            # The two files have a line every 100 updates each, but not always at the same step
            halves = (pandas.read_csv(folder / f"{name}.csv") for name in ("history", "updates"))
            table = pandas.merge_asof(*halves, on="env_steps", direction="nearest")
            table.insert(0, "run", folder.name)
            columns = ["run", "games", "mean", *UPDATES]
            histories.append(table.reindex(columns=columns))
        if (folder / "games.csv").exists():
            games.append(pandas.read_csv(folder / "games.csv").assign(run=folder.name))
    for name, tables in ("breakout_seeds", histories), ("breakout_games", games):
        if not tables:
            continue
        path, table = RESULTS / f"{name}.csv", pandas.concat(tables)
        if path.exists():  # what is there of other folders stays
            old = pandas.read_csv(path)
            table = pandas.concat([old[~old.run.isin(table.run)], table])
        # The defaults first, then those with the fewest other settings
        runs = sorted(
            table.run.unique(), key=lambda run: (not run.startswith("seed"), len(run), run)
        )
        table = table.set_index("run").loc[runs].reset_index()
        table.to_csv(path, index=False)


def main():
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("mode", choices=("train", "play", "collect"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--games", type=int, default=GAMES)
    parser.add_argument("--max-frames", type=int, default=LIMIT)
    parser.add_argument("--fire", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--output-dir", type=Path)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--slow-first-layer", action="store_true")
    options, settings = parser.parse_known_args()
    if settings and options.mode != "train":
        parser.error(f"{options.mode} takes no {' '.join(settings)}")
    if options.mode == "collect":
        collect((options.output_dir or Path("runs/seeds")).glob("*/"))
        return
    other = settings or options.slow_first_layer or not options.fire
    if other and options.mode == "train" and not options.output_dir:
        parser.error("other settings need an --output-dir of their own")
    folder = options.output_dir or Path(f"runs/seeds/seed_{options.seed}")
    if options.mode == "train":
        agent = SlowWatchedAgent if options.slow_first_layer else WatchedAgent
        fire = "--fire" if options.fire else "--no-fire"
        train(folder, ["--seed", str(options.seed), fire, *settings], agent)
        return
    agent = script.Agent(script.Config(seed=options.seed, fire=options.fire))
    weights = options.weights or folder / "weights.pth"
    script.load_weights(agent, weights)
    table = play(agent, options.seed, options.games, options.max_frames)
    folder.mkdir(parents=True, exist_ok=True)
    table.to_csv(folder / "games.csv", index=False)
    print(table.describe().round(1).to_string())


if __name__ == "__main__":
    main()
