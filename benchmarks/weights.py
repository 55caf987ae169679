"""Where importance weights stand, inside or outside the Huber loss: exact gradients, in a second.

    python benchmarks/weights.py

Prints the tables of docs/per_ablation.md. The network and the memory are frozen: 1,000 transitions,
of which 2 in 100 got a reward and have large TD errors upwards; the others have small ones downwards. Every gradient is the exact mean over all
draws, sum_i P(i) gradient_i: no sampling, no training.
"""

import sys
from pathlib import Path

import pandas as pd
import torch

sys.path.insert(0, str(Path(__file__).parent.parent))
from per_cartpole import QNetwork

ALPHA, N, REWARDED = 0.6, 1000, 20
SIZES = (10.0, 1.0, 0.1, 0.01, 0.001)  # of gradients
BETAS = (0.0, 0.4, 0.5, 0.7, 1.0)


def memory(seed=0):
    """Return (states (N, 4), TD errors (N,)); the first REWARDED errors are large."""
    generator = torch.Generator().manual_seed(seed)
    delta = torch.randn(N, generator=generator, dtype=torch.float64).abs() * -0.01
    delta[:REWARDED] = 0.5 + 0.4 * torch.rand(REWARDED, generator=generator, dtype=torch.float64)
    return torch.randn(N, 4, generator=generator, dtype=torch.float64), delta


def weighted(delta, beta):
    """Return P(i) and w_i = (N P(i))^-beta / max w, (N,) each."""
    probability = (delta.abs() + 0.01) ** ALPHA
    probability = probability / probability.sum()
    weight = (N * probability) ** -beta
    return probability, weight / weight.max()


def gradient(states, delta, probability, weight, inside):
    """Return the mean gradient of the Huber loss over all draws, as one vector.

    Outside it is sum_i P(i) w_i delta_i dQ_i, inside sum_i P(i) w_i^2 delta_i dQ_i (|w delta| < 1).
    """
    torch.manual_seed(0)
    network = QNetwork(4, 32, 2).double()
    q = network(states)[:, 0]
    error = delta + q.detach() - q  # delta in value, the gradient of -q
    if inside:
        loss = torch.nn.functional.huber_loss(
            weight * error, torch.zeros_like(error), reduction="none"
        )
    else:
        loss = weight * torch.nn.functional.huber_loss(
            error, torch.zeros_like(error), reduction="none"
        )
    (probability * loss).sum().backward()
    grads = [p.grad for p in network.parameters() if p.grad is not None]
    return torch.cat([grad.flatten() for grad in grads])


def directions(states, delta):
    """For each beta, outside and inside: the cosine with uniform replay's gradient, and more."""
    uniform = torch.full((N,), 1 / N, dtype=torch.float64)
    plain = gradient(states, delta, uniform, torch.ones_like(delta), False)
    rows = {}
    for beta in BETAS:
        probability, weight = weighted(delta, beta)
        row = {}
        for place, power in ("outside", 1), ("inside", 2):
            g = gradient(states, delta, probability, weight, place == "inside")
            force = probability * weight**power * delta.abs()
            row[f"{place}: cosine with uniform"] = torch.cosine_similarity(g, plain, dim=0).item()
            row[f"{place}: length / uniform's"] = (g.norm() / plain.norm()).item()
            row[f"{place}: rewarded share"] = (force[:REWARDED].sum() / force.sum()).item()
        rows[beta] = row
    return pd.DataFrame(rows).T.rename_axis("beta")


def steps():
    """A step of RMSProp with 0.01 inside its root, and of Adam, on a steady gradient; 1 is full."""
    rows = {g: {"RMSProp": g / (g**2 + 0.01) ** 0.5, "Adam": g / (g + 1e-8)} for g in SIZES}
    return pd.DataFrame(rows).T.rename_axis("gradient")


def tables():
    """Return both tables, as text with three decimals: {name: table}."""
    return {
        "weights": directions(*memory()).map("{:.3f}".format),
        "rmsprop": steps().map("{:.3f}".format),
    }


def main():
    for table in tables().values():
        print(table.to_markdown(disable_numparse=True), end="\n\n")


if __name__ == "__main__":
    main()
