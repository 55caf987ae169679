"""Trains every script, and the port of the articles' code beside it, on many seeds: a line of results/seeds.csv each.

    python benchmarks/seeds.py [--seeds 100] [--port-seeds 100] [--jobs 2]

Scripts and ports take turns seed by seed in the same worker processes, so that a ratio of their times is fair however
the machine's speed changes. What is in the CSV already is not run again: stop it and start it as you like.
"""

import argparse
import contextlib
import csv
import importlib
import io
import multiprocessing
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
PORTS = ("dqn", "ddqn", "dueling", "per")
SCRIPTS = (*PORTS, "a2c")
RESULTS = Path(__file__).parent / "results" / "seeds.csv"
FIELDS = (
    "program", "seed", "solved", "episodes", "env_steps", "checks", "train_seconds", "evaluation_mean", "evaluation_min"
)  # fmt: skip


def train_script(name, seed):
    """Trains one script with its defaults; returns a line of the CSV."""
    script = importlib.import_module(f"{name}_cartpole")
    config = script.Config(seed=seed)
    with contextlib.redirect_stdout(io.StringIO()):
        start = time.perf_counter()
        agent, history = script.train(config)
        seconds = time.perf_counter() - start
    last = history[-1]
    return line(f"{name}_cartpole", seed, last.solved, last.episode, last.env_steps, last.checks, seconds, agent)


def train_port(name, seed):
    """Trains one variant of the port; returns a line of the CSV."""
    import article_port

    agent, result = article_port.train(name, seed)
    seconds = result.pop("train_seconds")
    return line(f"{name}_port", seed, *result.values(), 0, seconds, agent)


def line(program, seed, solved, episodes, env_steps, checks, seconds, agent):
    """Adds the greedy evaluation: the same 100 episodes that the script's own main() plays."""
    import dqn_cartpole

    steps = dqn_cartpole.evaluate(agent, dqn_cartpole.Config(), seed=2**32 + seed)
    values = (program, seed, int(solved), episodes, env_steps, checks, round(seconds, 3), steps.mean(), steps.min())
    return dict(zip(FIELDS, values, strict=True))


def work(task):
    kind, name, seed = task
    return (train_script if kind == "cartpole" else train_port)(name, seed)


def read():
    """Returns the lines of the CSV, numbers as float."""
    if not RESULTS.exists():
        return []
    with open(RESULTS, newline="") as file:
        return [{k: v if k == "program" else float(v) for k, v in row.items()} for row in csv.DictReader(file)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=100, help="seeds 0, 1, ... of the scripts (default: 100)")
    parser.add_argument("--port-seeds", type=int, default=100, help="and of the ports, the slower ones (default: 100)")
    parser.add_argument("--jobs", type=int, default=2, help="worker processes, one a core (default: 2)")
    options = parser.parse_args()

    from tqdm import tqdm

    counts = {"cartpole": options.seeds, "port": options.port_seeds}
    tasks = [
        (kind, name, seed)
        for seed in range(max(counts.values()))
        for name in SCRIPTS
        for kind in ("cartpole", "port")
        if seed < counts[kind] and (kind == "cartpole" or name in PORTS)
    ]
    done = {(row["program"], row["seed"]) for row in read()}
    tasks = [task for task in tasks if (f"{task[1]}_{task[0]}", task[2]) not in done]
    RESULTS.parent.mkdir(exist_ok=True)
    with open(RESULTS, "a", newline="") as file, multiprocessing.get_context("spawn").Pool(options.jobs) as pool:
        writer = csv.DictWriter(file, FIELDS)
        if not file.tell():
            writer.writeheader()
        for row in tqdm(pool.imap_unordered(work, tasks), total=len(tasks), unit="run"):
            writer.writerow(row)
            file.flush()


if __name__ == "__main__":
    main()
