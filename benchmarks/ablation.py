"""What the parts of prioritized replay do on CartPole: per_cartpole.py with some of them left out or done otherwise.

    python benchmarks/ablation.py [--seeds 40] [--jobs 2]

A line of results/ablation.csv for each variant and seed; what is there already is not run again. The variants:

- uniform: alpha 0, so that every transition is as likely as the other and every weight is 1: double DQN
- alpha only: by priority, without importance weights (beta stays 0)
- weights / batch: the script as it is: weights divided by the batch's largest
- weights / memory: divided by the largest that any transition in the memory would have
- weights, raw: not divided

each with the script's learning rate and with a quarter of it, which is what the paper takes for prioritized replay.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from seeds import RESULTS, line, read, run, train_script

sys.path.insert(0, str(Path(__file__).parent.parent))
ABLATION = RESULTS.parent / "ablation.csv"
NO_WEIGHTS = {"beta": 0.0, "beta_steps": 10**9}
VARIANTS = {  # settings, and what the weights are divided by
    "uniform": ({"alpha": 0.0}, "batch"),
    "alpha only": (NO_WEIGHTS, "batch"),
    "weights / batch": ({}, "batch"),
    "weights / memory": ({}, "memory"),
    "weights, raw": ({}, "nothing"),
}
SHARES = (1, 0.25)  # of the learning rate


def memory_class(divisor, means):
    """ReplayMemory with the weights divided by something else; means collects each batch's mean weight."""
    import per_cartpole

    class Memory(per_cartpole.ReplayMemory):
        def sample(self, batch_size):
            batch = super().sample(batch_size)
            if divisor != "batch":
                beta = self.config.beta + (1 - self.config.beta) * min(
                    1, self.pushed / self.config.beta_steps
                )
                leaves = self.tree.sums[self.tree.first_leaf :][: len(self)]
                weight = (len(self) * leaves / self.tree.sums[1]) ** -beta
                largest = weight.max() if divisor == "memory" else 1
                batch = batch._replace(
                    weight=torch.from_numpy(weight[batch.index] / largest).float()
                )
            means.append(batch.weight.mean().item())
            return batch

    return Memory


def work(task):
    """Trains one variant on one seed."""
    import per_cartpole

    variant, share, seed = task
    settings, divisor = VARIANTS[variant]
    original, means = per_cartpole.ReplayMemory, []
    per_cartpole.ReplayMemory = memory_class(divisor, means)
    try:
        rate = share * per_cartpole.Config.learning_rate
        agent, result = train_script("per", seed, **{"learning_rate": rate}, **settings)
    finally:
        per_cartpole.ReplayMemory = original
    row = line(variant, seed, agent, result) | {"share": share, "mean_weight": np.mean(means)}
    return {ABLATION: row}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=40, help="seeds 0, 1, ... (default: 40)")
    parser.add_argument(
        "--jobs", type=int, default=2, help="worker processes, one a core (default: 2)"
    )
    options = parser.parse_args()
    done = {(row["program"], row["share"], row["seed"]) for row in read(ABLATION)}
    tasks = [
        (variant, share, seed)
        for seed in range(options.seeds)
        for variant in VARIANTS
        for share in SHARES
    ]
    run([task for task in tasks if task not in done], work, options.jobs)


if __name__ == "__main__":
    main()
