"""Importance weights outside, inside and without, under two optimizers, on CartPole.

    python benchmarks/inside.py [--seeds 40] [--jobs 2]

A line of results/inside.csv for each variant, optimizer, rate and seed; what is there already is
not run again. All else is per_cartpole.py as it is, but for giving up after 200 episodes.

- none: prioritized replay without weights; outside: mean of w Huber(delta), as in the paper;
  inside: mean of Huber(w delta), as in the article's code
- Adam: at the script's rate and at a quarter of it
- RMSProp: TensorFlow's, as the article's code has it: 0.01 inside the root, momentum 0.95; at 16
  and 4 times its rate of 0.00025 / 4, which is too slow for so few episodes
"""

import argparse
from unittest.mock import patch

import numpy as np
import torch
from seeds import FOLDER, line, read, run, train_script
from torch import nn

import per_cartpole

PLACES = ("none", "outside", "inside")
RATES = {"Adam": (3e-3, 7.5e-4), "RMSProp": (1e-3, 2.5e-4)}
EPISODES = 200  # then it gives up
HUBER = nn.functional.smooth_l1_loss


class RMSProp(torch.optim.Optimizer):
    """TensorFlow 1's: the mean square starts at 1, and epsilon stands inside the root.

    mean_square = decay * mean_square + (1 - decay) * g^2
    step = momentum * step + rate * g / sqrt(mean_square + epsilon)
    """

    def __init__(self, parameters, rate, decay=0.9, momentum=0.95, epsilon=0.01):
        super().__init__(parameters, {"lr": rate})
        self.decay, self.momentum, self.epsilon = decay, momentum, epsilon

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                if not state:
                    state["mean_square"], state["step"] = torch.ones_like(p), torch.zeros_like(p)
                square = state["mean_square"].lerp_(p.grad.square(), 1 - self.decay)
                root = (square + self.epsilon).sqrt()
                p -= state["step"].mul_(self.momentum).add_(group["lr"] * p.grad / root)


def variant(script, place, rmsprop_rate=None):
    """A script's memory and agent, with the weights in that place of the loss.

    With a rate for the article's RMSProp it replaces the script's Adam.
    """

    class Memory(script.ReplayMemory):
        def weights(self, *arguments):
            """Weights of 1 for the script; the loss below takes the true ones."""
            self.true_weights = super().weights(*arguments)
            return np.ones_like(self.true_weights)

    class Agent(script.Agent):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            if rmsprop_rate:
                self.optimizer = RMSProp(self.q_network.parameters(), rmsprop_rate)

        def learn(self):
            with patch.object(nn.functional, "smooth_l1_loss", self.loss):
                return super().learn()

        def loss(self, q, target, reduction):
            weight = torch.from_numpy(self.memory.true_weights).float()
            if place == "inside":
                return HUBER(weight * q, weight * target, reduction=reduction)
            loss = HUBER(q, target, reduction=reduction)
            return weight * loss if place == "outside" else loss

    return Memory, Agent


def work(task):
    """Trains one variant on one seed."""
    place, optimizer, rate, seed = task
    memory, agent_class = variant(per_cartpole, place, rate if optimizer == "RMSProp" else None)
    with patch.multiple(per_cartpole, ReplayMemory=memory, Agent=agent_class):
        agent, result = train_script("per", seed, learning_rate=rate, episodes=EPISODES)
    row = line(place, seed, agent, result) | {"optimizer": optimizer, "rate": rate}
    return {FOLDER / "inside.csv": row}


def main():
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--seeds", type=int, default=40, help="seeds 0, 1, ... (default: 40)")
    parser.add_argument("--jobs", type=int, default=2, help="worker processes (default: 2)")
    options = parser.parse_args()
    table = read("inside")
    keys = ["program", "optimizer", "rate", "seed"]
    done = set(table[keys].itertuples(index=False, name=None)) if len(table) else set()
    tasks = [
        (place, optimizer, rate, seed)
        for seed in range(options.seeds)
        for optimizer, rates in RATES.items()
        for rate in rates
        for place in PLACES
    ]
    run([task for task in tasks if task not in done], work, options.jobs)


if __name__ == "__main__":
    main()
