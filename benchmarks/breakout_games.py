"""Plays with agents of a2c_breakout.py as others do, and keeps their trainings: results/breakout_*.csv.

    python a2c_breakout.py --seed 1 --threads 1 --output-dir runs/alpha_0.9_seed_1
    python benchmarks/breakout_games.py runs/alpha_0.9_seed_1 [--seed 1] [--temperature 1] [--patience 27000] [--games 100] [--five-minutes]

The folder's name is the run's. Its history.csv, if it has one, goes into results/breakout_alpha.csv. With its weights.pth
whole games are played, by default 100 of at most 108,000 frames (half an hour, 27,000 steps), at the script's temperature, which
the games' run has in its name; 1 plays as in training. Another patience than the script's is in the name, too.
results/breakout_games.csv gets a line a game: score; score after 4,500 steps (five minutes); steps; and lives left, none unless
the limit cut the game. Games that are no longer than five minutes go into results/breakout_temperature.csv. What is there of the
same run is replaced.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from seeds import FOLDER

import a2c_breakout as script

LIMIT, FIVE_MINUTES = 108_000, 4500  # frames; steps


def play(agent, seed, num_games=100, limit=LIMIT):
    """Plays whole games at once; returns a table with a line a game."""
    torch.manual_seed(seed)
    games = script.Games(num_games, seed, limit, agent.config.fire)
    running = np.ones(num_games, bool)
    action = np.zeros(num_games, int)
    score, early, steps, lives = np.zeros((4, num_games), int)
    while running.any():
        action[running] = agent.act(games.state[running], games.idle[running])
        games.step(action)
        score[running] = games.score[running]
        lives[running] = games.lives[running]
        steps[running] += 1
        five = running & (steps <= FIVE_MINUTES)
        early[five] = score[five]
        running &= ~games.ended
    columns = {"game": np.arange(num_games) + 1, "score": score, "five_minutes": early}
    return pd.DataFrame(columns | {"steps": steps, "lives": lives})


def keep(name, run, rows):
    """Puts a run's lines into a table of results/, in place of those that are there."""
    path = FOLDER / f"{name}.csv"
    rows = rows.assign(run=run)
    if path.exists():
        old = pd.read_csv(path)
        rows = pd.concat([old[old.run != run], rows]).reindex(columns=old.columns)
    rows.convert_dtypes().to_csv(path, index=False)  # whole numbers stay whole beside gaps


def main():
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--games", type=int, default=100)
    parser.add_argument("--temperature", type=float, default=script.Config.temperature)
    parser.add_argument("--patience", type=int, default=script.Config.patience)
    parser.add_argument("--five-minutes", action="store_true")
    options = parser.parse_args()
    run = options.folder.name
    if (options.folder / "history.csv").exists():
        keep("breakout_alpha", run, pd.read_csv(options.folder / "history.csv"))
    run += f"_temperature_{options.temperature:g}"
    if options.patience != script.Config.patience:
        run += f"_patience_{options.patience}"
    settings = {name: getattr(options, name) for name in ("seed", "temperature", "patience")}
    agent = script.Agent(script.Config(**settings))
    script.load_weights(agent, options.folder / "weights.pth")
    limit = 4 * FIVE_MINUTES if options.five_minutes else LIMIT
    table = play(agent, options.seed, options.games, limit)
    kept = "breakout_temperature" if options.five_minutes else "breakout_games"
    keep(kept, run, table)
    print(table.describe().round(1).to_string())


if __name__ == "__main__":
    main()
