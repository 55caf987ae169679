"""What a step costs, on an otherwise idle machine; writes results/costs.json. Takes about eight minutes.

    python benchmarks/costs.py

- learning: steps a second while every update is made (no rest, no check), scripts and ports in turn; of the ports the
  first 60 episodes, in which PER replays uniformly for 30, as the article does
- per_step: time of a step of per_cartpole.py relative to one of ddqn_cartpole.py, while learning, in turn
- sum_tree: microseconds a step for the tree of per_cartpole.py (the push, and its share of a draw and an update)
- busy: steps a second beside a process that keeps one core busy, relative to alone, with one thread and with two
- command: seconds of the whole command, `python SCRIPT --seed N`, start to files
"""

import contextlib
import importlib
import io
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import article_port
import numpy as np
import torch
from seeds import PORTS, RESULTS, SCRIPTS

ROOT = Path(__file__).parent.parent
STEPS = 4000


def speed_of_script(name, seed):
    """Steps a second over STEPS steps of training that never rests."""
    script = importlib.import_module(f"{name}_cartpole")
    config = script.Config(seed=seed)
    type(config).stood = property(lambda self: np.inf)
    count = iter(range(STEPS - 1))
    with contextlib.redirect_stdout(io.StringIO()):
        start = time.perf_counter()
        script.train(config, stop=lambda: next(count, None) is None)
        return STEPS / (time.perf_counter() - start)


def speed_of_port(name, seed):
    """Steps a second of the port's first 60 episodes."""
    article_port.EPISODES = 60
    result = article_port.train(name, seed)[1]
    return result["curve"][-1][1] / result["train_seconds"]


def learning(rounds=5):
    speeds = {}
    for seed in range(rounds):
        for name in PORTS:
            speeds.setdefault(f"{name}_cartpole", []).append(speed_of_script(name, seed))
            speeds.setdefault(f"{name}_port", []).append(speed_of_port(name, seed))
    return {program: statistics.median(values) for program, values in speeds.items()}


def per_step(rounds=15):
    pairs = [
        (speed_of_script("ddqn", seed), speed_of_script("per", seed)) for seed in range(rounds)
    ]
    return statistics.median(ddqn / per for ddqn, per in pairs)


def tree_cost(size, rounds=2000):
    """Microseconds a step with a full memory of this size."""
    per = importlib.import_module("per_cartpole")
    config = per.Config(memory_size=size)
    memory, rng = per.ReplayMemory(config, 4), np.random.default_rng(0)
    memory.pushed = size
    memory.tree.update(np.arange(size), rng.random(size))
    td_error, leaves = (
        rng.random(config.batch_size),
        rng.integers(size, size=rounds * config.update_every),
    )
    values = rng.random((rounds, config.batch_size))
    start = time.perf_counter()
    for i in range(rounds):
        for leaf in leaves[i * config.update_every : (i + 1) * config.update_every]:
            memory.tree.update(int(leaf), 1.0)
        memory.update(memory.tree.find(values[i] * memory.tree.sums[1]), td_error)
    return (time.perf_counter() - start) / rounds / config.update_every * 1e6


def sum_tree(rounds=5):
    costs = {size: [] for size in (10_000, 100_000, 1_000_000)}
    for _ in range(rounds):
        for size, values in costs.items():
            values.append(tree_cost(size))
    return {size: statistics.median(values) for size, values in costs.items()}


def busy(rounds=5):
    set_threads, ratios = torch.set_num_threads, {1: [], 2: []}
    for seed in range(rounds):
        alone = speed_of_script("ddqn", seed)
        other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        time.sleep(0.5)
        for threads, values in ratios.items():
            torch.set_num_threads = lambda _, threads=threads: set_threads(
                threads
            )  # what train() asks for
            values.append(speed_of_script("ddqn", seed) / alone)
        torch.set_num_threads = set_threads
        other.kill()
        other.wait()
    return {threads: statistics.median(values) for threads, values in ratios.items()}


def command(seeds=5):
    seconds = {}
    for seed in range(seeds):
        for name in SCRIPTS:
            with tempfile.TemporaryDirectory() as folder:
                start = time.perf_counter()
                call = [
                    sys.executable,
                    ROOT / f"{name}_cartpole.py",
                    "--seed",
                    str(seed),
                    "--output-dir",
                    folder,
                ]
                subprocess.run(call, check=True, stdout=subprocess.DEVNULL)
                seconds.setdefault(f"{name}_cartpole", []).append(time.perf_counter() - start)
    return {script: statistics.median(values) for script, values in seconds.items()}


if __name__ == "__main__":
    torch.set_num_threads(1)
    results = {}
    for measure in (command, learning, per_step, sum_tree, busy):
        results[measure.__name__] = measure()
        print(measure.__name__, json.dumps(results[measure.__name__], indent=2), flush=True)
    (RESULTS.parent / "costs.json").write_text(json.dumps(results, indent=2) + "\n")
