"""Trains every script on many seeds, and beside it what it is compared with: a line of results/seeds.csv each.

    python benchmarks/seeds.py [--seeds 100] [--port-seeds 50] [--sb3-seeds 20] [--jobs 2]

- cartpole: the scripts, with their defaults
- port: the articles' code on today's libraries (article_port.py)
- sb3: stable-baselines3 with the settings of its zoo (sb3_port.py)

They take turns seed by seed in the same worker processes, so that a ratio of their times is fair however the machine's
speed changes. What is in the CSV already is not run again: stop it and start it as you like. The steps of each single
episode are in results/curves.csv.
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
PROGRAMS = {"cartpole": (*PORTS, "a2c"), "port": PORTS, "sb3": ("dqn", "a2c")}
SCRIPTS = PROGRAMS["cartpole"]
RESULTS = Path(__file__).parent / "results" / "seeds.csv"
CURVES = RESULTS.parent / "curves.csv"
FIELDS = (
    "program", "seed", "solved", "episodes", "env_steps", "checks", "train_seconds", "evaluation_mean", "evaluation_min"
)  # fmt: skip


def train_script(name, seed, **settings):
    """Trains one script, with its defaults but for the settings; returns (agent, result)."""
    script = importlib.import_module(f"{name}_cartpole")
    config = script.Config(seed=seed, **settings)
    with contextlib.redirect_stdout(io.StringIO()):
        start = time.perf_counter()
        agent, history = script.train(config)
        seconds = time.perf_counter() - start
    curve = [(row.steps, row.env_steps) for row in history]
    return agent, {
        "solved": history[-1].solved, "checks": history[-1].checks, "train_seconds": seconds, "curve": curve
    }  # fmt: skip


def train(kind, name, seed):
    """Trains one program; returns (agent, {solved, train_seconds, curve: (steps, environment steps) an episode})."""
    if kind == "cartpole":
        return train_script(name, seed)
    return importlib.import_module({"port": "article_port", "sb3": "sb3_port"}[kind]).train(
        name, seed
    )


def line(program, seed, agent, result):
    """A line of the CSV, with the greedy evaluation: the same 100 episodes that the script's own main() plays."""
    import dqn_cartpole

    steps, curve = (
        dqn_cartpole.evaluate(agent, dqn_cartpole.Config(), seed=2**32 + seed),
        result["curve"],
    )
    counts = (int(result["solved"]), len(curve), curve[-1][1], result.get("checks", 0))
    values = (program, seed, *counts, round(result["train_seconds"], 3), steps.mean(), steps.min())
    return dict(zip(FIELDS, values, strict=True))


def work(task):
    """Returns the lines of a task in each file, the one that counts it as done last."""
    kind, name, seed = task
    agent, result = train(kind, name, seed)
    steps, env_steps = (" ".join(map(str, column)) for column in zip(*result["curve"], strict=True))
    program = f"{name}_{kind}"
    curve = {"program": program, "seed": seed, "steps": steps, "env_steps": env_steps}
    return {CURVES: curve, RESULTS: line(program, seed, agent, result)}


def read(path=RESULTS):
    """Returns the lines of a CSV, numbers as float."""

    def value(text):
        try:
            return float(text)
        except ValueError:
            return text

    if not path.exists():
        return []
    with open(path, newline="") as file:
        return [{name: value(text) for name, text in row.items()} for row in csv.DictReader(file)]


def run(tasks, work, jobs):
    """Does the tasks, a few at a time, and appends their lines to the files as soon as they are there."""
    from tqdm import tqdm

    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        for lines in tqdm(pool.imap_unordered(work, tasks), total=len(tasks), unit="run"):
            for path, row in lines.items():
                with open(path, "a", newline="") as file:
                    writer = csv.DictWriter(file, row)
                    if not file.tell():
                        writer.writeheader()
                    writer.writerow(row)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--seeds", type=int, default=100, help="seeds 0, 1, ... of the scripts (default: 100)"
    )
    parser.add_argument(
        "--port-seeds", type=int, default=50, help="and of the articles' ports (default: 50)"
    )
    parser.add_argument(
        "--sb3-seeds", type=int, default=20, help="and of stable-baselines3 (default: 20)"
    )
    parser.add_argument(
        "--jobs", type=int, default=2, help="worker processes, one a core (default: 2)"
    )
    options = parser.parse_args()
    counts = {"cartpole": options.seeds, "port": options.port_seeds, "sb3": options.sb3_seeds}
    done = {(row["program"], row["seed"]) for row in read()}
    tasks = [
        (kind, name, seed)
        for seed in range(max(counts.values()))
        for name in SCRIPTS
        for kind, names in PROGRAMS.items()
        if seed < counts[kind] and name in names and (f"{name}_{kind}", seed) not in done
    ]
    run(tasks, work, options.jobs)


if __name__ == "__main__":
    main()
