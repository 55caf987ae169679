"""How far does one update move A2C's policy on Breakout? Goes on from a checkpoint, with one thing changed.

    python benchmarks/breakout_steps.py CHECKPOINT [--updates 600] [--only VARIANT ...]

Writes results/breakout_steps.csv, a line an update: the KL divergence of the policy after it from the policy before it, mean over 96
states, half of them of new games, half of games that ran for 650 steps and more; and, for every update of the unchanged training, what of
it each layer alone makes: the KL divergence if only that layer had moved.
"""

import argparse
import sys
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas
import torch
from torch.nn.functional import huber_loss
from tqdm import trange

sys.path.insert(0, str(Path(__file__).parent.parent))

import a2c_breakout as script

LAYERS = "conv.0", "conv.2", "conv.4", "conv.7", "actor"
WAIT = 0, 500  # steps before a state of new games, of running ones
RESULT = Path(__file__).parent / "results" / "breakout_steps.csv"


def twice_huber(error):
    """The square of an error up to 1; above, it grows by 2 an error of 1 more."""
    return 2 * huber_loss(error, torch.zeros_like(error), reduction="none")


class Huber(script.Agent):
    """An Agent whose critic has the Huber loss: no error pulls more than one of 1."""

    def learn(self, rollout, next_state):
        """The script's update, but for the critic's loss."""
        with patch.object(torch.Tensor, "square", twice_huber):
            return super().learn(rollout, next_state)


class SlowFirstLayer(script.Agent):
    """An Agent whose first layer moves a tenth as far."""

    def learn(self, rollout, next_state):
        """The script's update, nine tenths of which the first layer takes back."""
        first = list(self.network.conv[0].parameters())
        before = [parameter.detach().clone() for parameter in first]
        loss = super().learn(rollout, next_state)
        with torch.no_grad():
            for parameter, old in zip(first, before, strict=True):
                parameter.copy_(old + 0.1 * (parameter - old))
        return loss


class WithAdam(script.Agent):
    """An Agent with Adam."""

    def restore(self, saved):
        """Goes back to a checkpoint; Adam begins anew."""
        super().restore(saved)
        self.optimizer = torch.optim.Adam(self.network.parameters(), eps=1e-5)


VARIANTS = {  # the agent, and the settings that differ, as factors
    "as it is": (script.Agent, {}),
    "half the rate": (script.Agent, {"learning_rate": 0.5}),
    "a tenth of the rate in the first layer": (SlowFirstLayer, {}),
    "the critic's error counts a quarter": (script.Agent, {"value_coef": 0.25}),
    "Huber loss of the critic": (Huber, {}),
    "gradients clipped to a fifth": (script.Agent, {"max_grad_norm": 0.2}),
    "Adam, a quarter of the rate": (WithAdam, {"learning_rate": 0.25}),
}


def collect(agent, games, steps, storage=None):
    """Plays a few steps, into a storage where there is one."""
    for _ in range(steps):
        action, *outputs = agent.sample(games.state)
        reward, *ends = games.step(action)
        if storage:
            clipped = np.sign(reward) if agent.config.clip_rewards else reward
            storage.insert(*outputs, clipped, *ends)


@torch.no_grad()
def probes(agent, games):
    """Returns states (96, 4, 84, 84) of new games, and of games that ran for 650 steps and more."""
    states = []
    for wait in WAIT:
        collect(agent, games, wait)
        for _ in range(6):
            collect(agent, games, 25)
            states.append(games.state[:8].copy())
    return torch.from_numpy(np.concatenate(states))


@torch.no_grad()
def policy(agent, states):
    """Returns the logarithms of the policy's probabilities: (N, num_actions)."""
    return torch.log_softmax(agent.network(states)[0], -1)


def divergence(before, after):
    """Returns the mean KL divergence of two policies (N, num_actions), as logarithms."""
    return (before.exp() * (before - after)).sum(-1).mean().item()


@torch.no_grad()
def layer_by_layer(agent, states, before, weights):
    """Returns the KL divergence if only one layer had moved from its weights before: {layer: KL}."""
    after, alone = {k: v.clone() for k, v in agent.network.state_dict().items()}, {}
    for layer in LAYERS:
        moved = {k: after[k] if k.startswith(layer) else weights[k] for k in after}
        agent.network.load_state_dict(moved)
        alone[layer] = divergence(before, policy(agent, states))
    agent.network.load_state_dict(after)
    return alone


def follow(checkpoint, variant, updates):
    """Goes on from a checkpoint with one thing changed; returns a table with a line an update."""
    saved = torch.load(checkpoint, map_location="cpu", weights_only=True)
    kind, factors = VARIANTS[variant]
    agent = kind(script.Config(**saved["config"]))
    agent.restore(saved)
    config, storage, rows = agent.config, script.RolloutStorage(), []
    games = script.Games(config.num_envs, config.seed, config.max_frames, config.fire)
    states = probes(agent, games)
    games.count()  # what was played so far is no training
    for name, factor in factors.items():
        setattr(config, name, getattr(config, name) * factor)
    for update in trange(1, updates + 1, desc=variant):
        rate = config.learning_rate * (1 - agent.env_steps / config.steps)
        agent.optimizer.param_groups[0]["lr"] = rate
        collect(agent, games, config.num_steps, storage)
        before = policy(agent, states)
        weights = {k: v.clone() for k, v in agent.network.state_dict().items()}
        agent.learn(storage.take(), games.state)
        row = {"variant": variant, "update": update}
        row["kl"] = divergence(before, policy(agent, states))
        if variant == "as it is":
            row |= layer_by_layer(agent, states, before, weights)
        rows.append(row)
        agent.env_steps += sum(steps for steps, _ in games.count())
    return pandas.DataFrame(rows, columns=["variant", "update", "kl", *LAYERS])


def main():
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--updates", type=int, default=600)
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    options = parser.parse_args()
    for variant in options.only:
        table = follow(options.checkpoint, variant, options.updates)
        if RESULT.exists():  # other variants stay
            old = pandas.read_csv(RESULT)
            table = pandas.concat([old[old.variant != variant], table])
        table.to_csv(RESULT, index=False, float_format="%.3g")


if __name__ == "__main__":
    main()
