"""Trains every script on many seeds, beside what it is compared with: a line of results/seeds.csv each.

    python benchmarks/seeds.py [--seeds 100] [--port-seeds 50] [--sb3-seeds 20] [--jobs 2]
    python benchmarks/seeds.py --output thousand --first 1000 --seeds 1000 --port-seeds 0 --sb3-seeds 0
    python benchmarks/seeds.py --output per_dueling --only per_dueling

- cartpole: the scripts, with their defaults
- port: the book's code on today's libraries (article_port.py)
- sb3: stable-baselines3 with the settings of its zoo (sb3_port.py)
- per_dueling: per_cartpole.py with the network of dueling_cartpole.py

They take turns seed by seed in the same worker processes, so that a ratio of their times is fair
however the machine's speed changes. What is in the CSV already is not run again: stop it and start
it as you like. The steps of each single episode are in results/curves_seeds.csv.

Solved: by the rule of each script; ports and SB3 by the book's, ten episodes in a row that stood.
max_target (Q scripts only): the largest target of any batch. No true value is above 0 here.
"""

import argparse
import contextlib
import csv
import functools
import importlib
import io
import multiprocessing
import sys
import time
from pathlib import Path
from unittest import mock

import pandas as pd

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
PORTS = ("dqn", "ddqn", "dueling", "per")
SCRIPTS = (*PORTS, "a2c")
PROGRAMS = {"cartpole": (*SCRIPTS, "per_dueling"), "port": PORTS, "sb3": ("dqn", "a2c")}
FOLDER = Path(__file__).parent / "results"


def watched(agent_class, largest):
    """The agent class of a Q script; its targets put the largest of every batch into a list."""

    class Watched(agent_class):
        def td_target(self, batch):
            target = super().td_target(batch)
            largest.append(target.max().item())
            return target

    return Watched


def train_script(name, seed, **settings):
    """Trains one script, with its defaults but for the settings; returns (agent, result)."""
    script = importlib.import_module(f"{name.removesuffix('_dueling')}_cartpole")
    config = script.Config(seed=seed, **settings)
    largest = []
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        if name != "a2c":
            agent_class = watched(script.Agent, largest)
            stack.enter_context(mock.patch.object(script, "Agent", agent_class))
        if name == "per_dueling":
            dueling = importlib.import_module("dueling_cartpole")
            stack.enter_context(mock.patch.object(script, "QNetwork", dueling.QNetwork))
        start = time.perf_counter()
        agent, history = script.train(config)
        seconds = time.perf_counter() - start
    last = history[-1]
    if name == "a2c":
        means = [row.mean_steps for row in history]
        steps = [float("nan") if mean is None else mean for mean in means]
    else:
        steps = [row.steps for row in history]
    return agent, {
        "solved": last.passed if name == "a2c" else last.full_tests == config.solved_after,
        "episodes": last.episodes if name == "a2c" else last.episode,
        "train_seconds": seconds,
        "max_target": max(largest, default=None),
        "curve": list(zip(steps, (row.env_steps for row in history), strict=True)),
    }


def train(kind, name, seed):
    """Trains one program; returns (agent, result)."""
    if kind == "cartpole":
        return train_script(name, seed)
    module = importlib.import_module({"port": "article_port", "sb3": "sb3_port"}[kind])
    agent, result = module.train(name, seed)
    return agent, {"episodes": len(result["curve"]), "max_target": None} | result


def line(program, seed, agent, result, max_steps=200):
    """A line of the CSV, with the greedy evaluation: the 100 episodes of the script's main()."""
    import dqn_cartpole

    config = dqn_cartpole.Config(max_steps=max_steps)
    steps = dqn_cartpole.evaluate(agent, config, seed=2**32 + seed)
    target = result["max_target"]
    return {
        "program": program,
        "seed": seed,
        "solved": int(result["solved"]),
        "episodes": result["episodes"],
        "env_steps": result["curve"][-1][1],
        "train_seconds": round(result["train_seconds"], 3),
        "max_target": None if target is None else round(target, 4),
        "evaluation_mean": steps.mean(),
        "evaluation_min": steps.min(),
    }


def work(output, task):
    """Returns the lines of a task in each file, the one that counts it as done last."""
    kind, name, seed = task
    agent, result = train(kind, name, seed)
    steps, env_steps = (" ".join(map(str, column)) for column in zip(*result["curve"], strict=True))
    program = f"{name}_{kind}"
    curve = {"program": program, "seed": seed, "steps": steps, "env_steps": env_steps}
    row = line(program, seed, agent, result)
    curves = {} if output == "thousand" else {FOLDER / f"curves_{output}.csv": curve}
    return curves | {FOLDER / f"{output}.csv": row}


def read(name):
    """Returns a CSV of results/ as a table; an empty one where there is none."""
    path = FOLDER / f"{name}.csv"
    return pd.read_csv(path) if path.exists() else pd.DataFrame(columns=["program", "seed"])


def run(tasks, work, jobs):
    """Does the tasks, a few at a time; appends their lines to the files as soon as they are there."""
    from tqdm import tqdm

    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        for lines in tqdm(pool.imap_unordered(work, tasks), total=len(tasks), unit="run"):
            for path, row in lines.items():
                with open(path, "a", newline="") as file:
                    writer = csv.DictWriter(file, row)
                    if not file.tell():
                        writer.writeheader()
                    writer.writerow(row)


def run_missing(doc, table, programs, work, seeds):
    """The command line of a benchmark: does what is not in the table yet, seed by seed."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=doc, formatter_class=form)
    words = f"seeds 0, 1, ... (default: {seeds})"
    parser.add_argument("--seeds", type=int, default=seeds, help=words)
    parser.add_argument("--jobs", type=int, default=2, help="worker processes (default: 2)")
    options = parser.parse_args()
    done = set(read(table)[["program", "seed"]].itertuples(index=False, name=None))
    tasks = [(program, seed) for seed in range(options.seeds) for program in programs]
    run([task for task in tasks if task not in done], work, options.jobs)


def main():
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--seeds", type=int, default=100, help="of the scripts (default: 100)")
    parser.add_argument("--port-seeds", type=int, default=50, help="of the ports (default: 50)")
    parser.add_argument("--sb3-seeds", type=int, default=20, help="of SB3 (default: 20)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (default: 0)")
    parser.add_argument("--jobs", type=int, default=2, help="worker processes (default: 2)")
    parser.add_argument("--output", default="seeds", help="name of the CSV (default: seeds)")
    parser.add_argument("--only", help="one program, such as dqn or per_dueling (default: all)")
    options = parser.parse_args()
    counts = {"cartpole": options.seeds, "port": options.port_seeds, "sb3": options.sb3_seeds}
    done = set(read(options.output)[["program", "seed"]].itertuples(index=False, name=None))
    tasks = [
        (kind, name, options.first + i)
        for i in range(max(counts.values()))
        for name in ([options.only] if options.only else SCRIPTS)
        for kind, names in PROGRAMS.items()
        if i < counts[kind] and name in names and (f"{name}_{kind}", options.first + i) not in done
    ]
    run(tasks, functools.partial(work, options.output), options.jobs)


if __name__ == "__main__":
    main()
