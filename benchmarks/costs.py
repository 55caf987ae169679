"""What a step costs, on an otherwise idle machine; writes results/costs.json. Takes about four minutes.

    python benchmarks/costs.py

- per_step: time of a step of per_cartpole.py relative to one of ddqn_cartpole.py, while learning, in turn
- sum_tree: microseconds a step for the tree of per_cartpole.py (the push, and its share of a draw and an update)
- busy: steps a second beside a process that keeps one core busy, relative to alone, with one thread and with two
- command: seconds of the whole command, `python SCRIPT --seed N`, start to files
"""

import importlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch
from seeds import FOLDER, SCRIPTS

ROOT = Path(__file__).parent.parent
STEPS = 4000


def speed_of_script(name, seed, threads=1):
    """Steps a second of acting, stepping, storing and learning, as train() does it."""
    script = importlib.import_module(f"{name}_cartpole")
    config = script.Config(seed=seed)
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    env = gym.make("CartPole-v1", max_episode_steps=config.max_steps, sutton_barto_reward=True)
    state, _ = env.reset(seed=seed)
    agent, start = script.Agent(config, 4, 2), time.perf_counter()
    for step in range(1, STEPS + 1):
        action = agent.act(state, explore=True)
        next_state, reward, terminated, truncated, _ = env.step(action)
        agent.memory.push(state, action, reward, next_state, terminated)
        state = env.reset()[0] if terminated or truncated else next_state
        if step >= config.batch_size:
            agent.learn()
    return STEPS / (time.perf_counter() - start)


def per_step(rounds=9):
    pairs = [
        (speed_of_script("ddqn", seed), speed_of_script("per", seed)) for seed in range(rounds)
    ]
    return statistics.median(ddqn / per for ddqn, per in pairs)


def tree_cost(size, rounds=2000):
    """Microseconds a step with a full memory of this size."""
    per = importlib.import_module("per_cartpole")
    config, rng = per.Config(memory_size=size), np.random.default_rng(0)
    memory = per.ReplayMemory(config, 4)
    memory.pushed = size
    memory.tree[np.arange(size)] = rng.random(size)
    td_error, leaves = rng.random(config.batch_size), rng.integers(size, size=rounds)
    values = rng.random((rounds, config.batch_size))
    start = time.perf_counter()
    for leaf, value in zip(leaves.tolist(), values, strict=True):
        memory.tree[leaf] = 1.0
        memory.update_priorities(memory.tree.find(value * memory.tree.total()), td_error)
    return (time.perf_counter() - start) / rounds * 1e6


def sum_tree(rounds=5):
    costs = {size: [] for size in (10_000, 100_000, 1_000_000)}
    for _ in range(rounds):
        for size, values in costs.items():
            values.append(tree_cost(size))
    return {size: statistics.median(values) for size, values in costs.items()}


def busy(rounds=3):
    """Speed beside a busy process, with one and with two threads, as a share of one alone."""
    ratios = {1: [], 2: []}
    for seed in range(rounds):
        alone = speed_of_script("ddqn", seed)
        other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        time.sleep(0.5)
        for threads, values in ratios.items():
            values.append(speed_of_script("ddqn", seed, threads) / alone)
        other.kill()
        other.wait()
    return {threads: statistics.median(values) for threads, values in ratios.items()}


def command(seeds=3):
    seconds = {}
    for seed in range(seeds):
        for name in SCRIPTS:
            with tempfile.TemporaryDirectory() as folder:
                start = time.perf_counter()
                call = [sys.executable, ROOT / f"{name}_cartpole.py", "--seed", str(seed)]
                call += ["--output-dir", folder]
                subprocess.run(call, check=True, stdout=subprocess.DEVNULL)
                seconds.setdefault(f"{name}_cartpole", []).append(time.perf_counter() - start)
    return {script: statistics.median(values) for script, values in seconds.items()}


if __name__ == "__main__":
    torch.set_num_threads(1)
    results = {}
    for measure in (command, per_step, sum_tree, busy):
        results[measure.__name__] = measure()
        print(measure.__name__, json.dumps(results[measure.__name__], indent=2), flush=True)
    (FOLDER / "costs.json").write_text(json.dumps(results, indent=2) + "\n")
