"""What the parts of prioritized replay do on CartPole: per_cartpole.py with some of them left out.

    python benchmarks/ablation.py [--seeds 40] [--jobs 2]

A line of results/ablation.csv for each variant and seed; what is there already is not run again.

- uniform: alpha 0: every transition is as likely, every weight is 1, as in double DQN
- alpha only: by priority, without importance weights (beta stays 0)
- weights / batch: the script as it is: weights divided by the batch's largest
- weights / memory: divided by the largest that any transition in the memory would have
- weights, raw: not divided

each with the script's learning rate and with a quarter of it, the paper's for prioritized replay.
"""

import argparse
from unittest.mock import patch

import numpy as np
from seeds import FOLDER, line, read, run, train_script

import per_cartpole

VARIANTS = {  # settings, and what the weights are divided by
    "uniform": ({"alpha": 0.0}, "batch"),
    "alpha only": ({"beta": 0.0, "beta_steps": 10**9}, "batch"),
    "weights / batch": ({}, "batch"),
    "weights / memory": ({}, "memory"),
    "weights, raw": ({}, "nothing"),
}
SHARES = (1, 0.25)  # of the learning rate


def memory_class(divisor, means):
    """ReplayMemory whose weights are divided by something else; means collects their means."""

    class Memory(per_cartpole.ReplayMemory):
        def weights(self, index):
            """The raw weights relative to the batch's largest, the memory's, or as they are."""
            weight = super().weights(index)
            if divisor != "batch":  # all transitions as one batch: divided by the memory's largest
                everything = super().weights(np.arange(len(self)))
                weight = everything[index]
            if divisor == "nothing":  # a transition of the mean priority has the raw weight 1
                progress = min(1, self.pushed / self.config.beta_steps)
                beta = self.config.beta + (1 - self.config.beta) * progress
                lowest = self.tree[np.arange(len(self))].min()
                weight = weight * (len(self) * lowest / self.tree.nodes[1]) ** -beta
            means.append(weight.mean())
            return weight

    return Memory


def work(task):
    """Trains one variant on one seed."""
    variant, share, seed = task
    settings, divisor = VARIANTS[variant]
    means, rate = [], share * per_cartpole.Config.learning_rate
    with patch.object(per_cartpole, "ReplayMemory", memory_class(divisor, means)):
        agent, result = train_script("per", seed, learning_rate=rate, **settings)
    row = line(variant, seed, agent, result) | {"share": share, "mean_weight": np.mean(means)}
    return {FOLDER / "ablation.csv": row}


def main():
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--seeds", type=int, default=40, help="seeds 0, 1, ... (default: 40)")
    parser.add_argument("--jobs", type=int, default=2, help="worker processes (default: 2)")
    options = parser.parse_args()
    table = read("ablation")
    done = set(table[["program", "share", "seed"]].itertuples(index=False, name=None))
    seeds = range(options.seeds)
    tasks = [(variant, share, seed) for seed in seeds for variant in VARIANTS for share in SHARES]
    run([task for task in tasks if task not in done], work, options.jobs)


if __name__ == "__main__":
    main()
