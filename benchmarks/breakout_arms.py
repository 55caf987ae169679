"""Trains extras/per_breakout.py with its parts taken out or done otherwise, on Breakout.

    python benchmarks/breakout_arms.py train ARM [--seed 0] [--steps 1000000] [--output-dir runs/arms]
    python benchmarks/breakout_arms.py play [--output-dir runs/arms]

Arms: double, dueling (both replay uniformly), per, per_dueling; and per with the article's RMSProp and the weights of
prioritized replay left out, outside the Huber loss and inside it: rmsprop_none, rmsprop_outside, rmsprop_inside; inside
with Adam: adam_inside. An arm's folder, such as per_0, gets a checkpoint while it trains, its weights and its history at the
end. A training that was stopped goes on from its checkpoint, with an empty replay memory. The settings are the script's
defaults of before: see THEN.

`play` lets the weights of each folder play 100 whole games (epsilon 0.01) and puts their history, a line every 16,000 steps,
into results/arms.csv, the score of each game into results/arms_scores.csv.
"""

import argparse
import signal
import sys
from pathlib import Path
from unittest.mock import patch

import pandas
import torch
from inside import variant

FOLDER, GAMES = Path(__file__).parent / "results", 100
sys.path.insert(0, str(Path(__file__).parent.parent / "extras"))

import per_breakout as script  # noqa: E402

RATE = 0.00025 / 4  # of the article's RMSProp
# The script's defaults when the first arms were trained; an arm today is comparable only with them
THEN = {"num_envs": 32, "batch_size": 128, "learning_rate": 2e-4, "target_every": 125}
ARMS = {
    "double": {"alpha": 0},
    "dueling": {"alpha": 0, "dueling": 1},
    "per": {},
    "per_dueling": {"dueling": 1},
    "rmsprop_none": {},
    "rmsprop_outside": {},
    "rmsprop_inside": {},
    "adam_inside": {},
}


def train(arm, seed, steps, folder):
    """Trains an arm, until SIGTERM or Ctrl-C at the latest."""
    folder.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    optimizer, _, place = arm.partition("_")
    memory, agent_class = script.ReplayMemory, script.Agent
    if place in ("none", "outside", "inside"):
        rate = RATE if optimizer == "rmsprop" else None
        memory, agent_class = variant(script, place, rate)
    config = script.Config(seed=seed, steps=steps, **THEN, **ARMS[arm])
    agent, checkpoint = agent_class(config), folder / "checkpoint.pth"
    if checkpoint.exists():
        script.load(checkpoint, agent.restore)
    with patch.object(script, "ReplayMemory", memory):
        agent, history = script.train(config, agent, checkpoint)
    if agent.env_steps < steps:
        sys.exit(130)  # interrupted
    half = {name: weight.half() for name, weight in agent.q_network.state_dict().items()}
    torch.save(half, folder / "weights.pth")
    table = pandas.DataFrame(history, columns=script.Update._fields)
    table.insert(0, "seed", seed)
    table.insert(0, "arm", arm)
    table.to_csv(folder / "history.csv", index=False)
    print(f"{arm} {seed}: {agent.env_steps} steps, {agent.seconds:.0f} s, {history[-1:]}")


def play(folder):
    """Plays with the weights in a folder; returns the scores of 100 games."""
    arm, seed = folder.name.rsplit("_", 1)
    config = script.Config(seed=int(seed), games=GAMES, **ARMS[arm])
    config.mode, config.media = "play", False
    agent = script.Agent(config)
    script.load(folder / "weights.pth", agent.q_network.load_state_dict)
    _, write_scores, _ = script.play(agent, config)
    write_scores(folder / "scores.csv")
    table = pandas.read_csv(folder / "scores.csv")
    return table.assign(arm=arm, seed=int(seed))[["arm", "seed", "game", "score", "best_life"]]


def add(name, table):
    """Puts an arm's lines into a CSV of results/, in place of those it has."""
    path, key = FOLDER / f"{name}.csv", ["arm", "seed"]
    if path.exists():
        old = pandas.read_csv(path)
        table = pandas.concat([old[(old[key] != table[key].iloc[0]).any(axis=1)], table])
    table.to_csv(path, index=False)


def main():
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("mode", choices=("train", "play"))
    parser.add_argument("arm", nargs="?", choices=ARMS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--output-dir", type=Path, default=Path("runs/arms"))
    options = parser.parse_args()
    if (options.mode == "train") != bool(options.arm):
        parser.error("train needs an ARM, play takes none")
    if options.mode == "train":
        folder = options.output_dir / f"{options.arm}_{options.seed}"
        train(options.arm, options.seed, options.steps, folder)
        return
    for folder in sorted(path.parent for path in options.output_dir.glob("*/weights.pth")):
        add("arms", pandas.read_csv(folder / "history.csv"))
        add("arms_scores", play(folder))


if __name__ == "__main__":
    main()
