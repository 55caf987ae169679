"""What each part is for: the scripts with one part left out or done otherwise, on many seeds.

    python benchmarks/parts.py [--seeds 40] [--jobs 2]

A line of results/parts.csv for each variant and seed; what is there already is not run again.
"""

import contextlib
import importlib
from unittest.mock import patch

import gymnasium as gym
import numpy as np
import torch
from seeds import FOLDER, line, run_missing, train_script

import a2c_cartpole
import dqn_cartpole
import per_cartpole

COPY = 100  # updates
MAKE = gym.make


class HardCopy(dqn_cartpole.Agent):
    """Copies the whole Q network every COPY updates."""

    updates = 0

    def update_target(self):
        self.updates += 1
        if self.updates % COPY == 0:
            self.target_network.load_state_dict(self.q_network.state_dict())


class EverySecondStep(dqn_cartpole.Agent):
    """Learns at every second call only."""

    calls = 0

    def learn(self):
        self.calls += 1
        return super().learn() if self.calls % 2 == 0 else np.nan


class Ended(gym.Wrapper):
    """Remembers whether the last step met the time limit."""

    truncated = False

    def step(self, action):
        result = super().step(action)
        Ended.truncated = result[3]
        return result


class LimitIsAnEnd(dqn_cartpole.ReplayMemory):
    """Reaching the limit pays +1 and ends the return, as in the articles."""

    def push(self, state, action, reward, next_state, terminated):
        if Ended.truncated:
            reward, terminated = 1.0, True
        super().push(state, action, reward, next_state, terminated)


def make_ended(*arguments, **settings):
    """gym.make, with Ended around the environment."""
    return Ended(MAKE(*arguments, **settings))


class CutAtLimit(a2c_cartpole.Agent):
    """The limit ends the return."""

    def returns(self, rollout, next_state):
        terminated = rollout.terminated | rollout.truncated
        return super().returns(rollout._replace(terminated=terminated), next_state)


class Unmasked(a2c_cartpole.Agent):
    """Steps that only reset are learned from too."""

    def learn(self, rollout, next_state):
        return super().learn(rollout._replace(valid=rollout.valid | True), next_state)


class AnywhereTree(per_cartpole.SumTree):
    """Draws anywhere in the total, not one from each part."""

    def find(self, value):
        anywhere = torch.rand(len(value), dtype=torch.float64).numpy() * self.total()
        return super().find(anywhere)


class NewAsIfKnown(per_cartpole.ReplayMemory):
    """A new transition has the priority of one without error."""

    def push(self, *transition):
        place = self.pushed % self.capacity
        super().push(*transition)
        self.tree[place] = self.config.priority_epsilon**self.config.alpha


def mean_squared(q, target):
    return (q - target).square().mean()


VARIANTS = {  # script: {variant: (settings, what is replaced: {name in the script: by what})}
    "dqn": {
        "as it is": ({}, {}),
        "no replay: the last 128 only": ({"memory_size": 128}, {}),
        "no target network": ({"tau": 1.0}, {}),
        "values not limited": ({"q_limit": 1e9}, {}),
        "no target network, values not limited": ({"tau": 1.0, "q_limit": 1e9}, {}),
        "target copied every 100 updates": ({}, {"Agent": HardCopy}),
        "no exploration": ({"epsilon": 0.0}, {}),
        "the limit is an end, and pays +1": (
            {},
            {"ReplayMemory": LimitIsAnEnd, "gym.make": make_ended},
        ),
        "mean squared error": ({}, {"nn.functional.smooth_l1_loss": mean_squared}),
        "an update every second step": ({}, {"Agent": EverySecondStep}),
        "the book's network (32 units)": ({"hidden_size": 32}, {}),
    },
    "a2c": {
        "as it is": ({}, {}),
        "one environment": ({"num_envs": 1}, {}),
        "1-step returns": ({"num_steps": 1}, {}),
        "20-step returns": ({"num_steps": 20}, {}),
        "no entropy term": ({"entropy_coef": 0.0}, {}),
        "gradients not clipped": ({"max_grad_norm": 1000.0}, {}),
        "resets not masked": ({}, {"Agent": Unmasked}),
        "the limit is an end": ({}, {"Agent": CutAtLimit}),
    },
    "per": {
        "as it is": ({}, {}),
        "alpha 0": ({"alpha": 0.0}, {}),
        "beta 0": ({"beta": 0.0, "beta_steps": 10**9}, {}),
        "drawn anywhere in the total": ({}, {"SumTree": AnywhereTree}),
        "new transitions without priority": ({}, {"ReplayMemory": NewAsIfKnown}),
    },
}


def work(task):
    """Trains one variant on one seed."""
    program, seed = task
    name, variant = program.split(": ", 1)
    settings, replaced = VARIANTS[name][variant]
    with contextlib.ExitStack() as stack:
        for path, substitute in replaced.items():
            *owner, attribute = path.split(".")
            where = importlib.import_module(f"{name}_cartpole")
            for part in owner:
                where = getattr(where, part)
            stack.enter_context(patch.object(where, attribute, substitute))
        agent, result = train_script(name, seed, **settings)
    return {FOLDER / "parts.csv": line(program, seed, agent, result)}


if __name__ == "__main__":
    programs = [f"{name}: {variant}" for name, variants in VARIANTS.items() for variant in variants]
    run_missing(__doc__, "parts", programs, work, seeds=40)
