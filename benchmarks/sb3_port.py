"""stable-baselines3's DQN and A2C on CartPole, with the settings of its zoo: a yardstick of benchmarks/seeds.py.

The settings are those of rl-baselines3-zoo (hyperparams/dqn.yml and a2c.yml, CartPole-v1); what they do not name is
left as stable-baselines3 has it. Episodes have the articles' limit of 200 steps, and training ends after ten episodes
in a row that stood, of whichever environment, or after the zoo's number of steps.
"""

import time

import torch
from stable_baselines3 import A2C, DQN
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env

MAX_STEPS, STOOD = 200, 195
DQN_SETTINGS = {
    "learning_rate": 2.3e-3,
    "batch_size": 64,
    "buffer_size": 100_000,
    "learning_starts": 1000,
    "gamma": 0.99,
    "target_update_interval": 10,
    "train_freq": 256,
    "gradient_steps": 128,
    "exploration_fraction": 0.16,
    "exploration_final_eps": 0.04,
    "policy_kwargs": {"net_arch": [256, 256]},
}
ZOO = {  # class, environments, steps, settings
    "dqn": (DQN, 1, 50_000, DQN_SETTINGS),
    "a2c": (A2C, 8, 500_000, {"ent_coef": 0.0}),
}


class Criterion(BaseCallback):
    """Stops the training once the last ten episodes stood."""

    def __init__(self):
        super().__init__()
        self.curve, self.solved = [], False  # (steps, environment steps) of each episode

    def _on_step(self):
        ended = [info["episode"]["l"] for info in self.locals["infos"] if "episode" in info]
        self.curve += [(steps, self.num_timesteps) for steps in ended]
        last = [steps for steps, _ in self.curve[-10:]]
        self.solved = len(last) == 10 and min(last) >= STOOD
        return not self.solved


class Greedy:
    """Acts as the scripts' agents do."""

    def __init__(self, model):
        self.model = model

    def greedy(self, state):
        """Returns the greedy actions for states (B, 4)."""
        return self.model.predict(state, deterministic=True)[0]


def train(name, seed):
    """Trains one of them; returns (agent, result)."""
    torch.set_num_threads(1)
    algorithm, num_envs, steps, settings = ZOO[name]
    env = make_vec_env(
        "CartPole-v1", num_envs, seed=seed, env_kwargs={"max_episode_steps": MAX_STEPS}
    )
    model, criterion = algorithm("MlpPolicy", env, seed=seed, device="cpu", **settings), Criterion()
    start = time.perf_counter()
    model.learn(steps, callback=criterion)
    seconds = time.perf_counter() - start
    return Greedy(model), {
        "solved": criterion.solved,
        "train_seconds": seconds,
        "curve": criterion.curve,
    }
