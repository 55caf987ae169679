"""The book's A2C on today's libraries, as article_port.py has its Q-learning.

    python benchmarks/article_a2c_port.py [SEEDS]

It re-creates the program of chapter 6.5 of the repository of the book 「つくりながら学ぶ!深層強化学習」,
https://github.com/YutaroOgawa/Deep-Reinforcement-Learning-Book (MIT License, Copyright (c) 2018 Yutaro Ogawa).

Settings and data structures are its own: 32 environments in a loop, 5 steps, 4-32-32 with two heads, Adam at 0.01 with
its usual eps, masks, a second pass through the network for the update, +1 for reaching the limit as if it were an end.
It stops when the latest episode of every environment paid +1. Nothing is mended.
"""

import sys
import time
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

NUM_ENVS, NUM_STEPS, GAMMA, MAX_STEPS, STOOD = 32, 5, 0.99, 200, 195
UPDATES = 1000 * NUM_ENVS  # the book's NUM_EPISODES * NUM_PROCESSES
VALUE_COEF, ENTROPY_COEF, MAX_GRAD_NORM = 0.5, 0.01, 0.5


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(4, 32), nn.Linear(32, 32)
        self.actor, self.critic = nn.Linear(32, 2), nn.Linear(32, 1)

    def forward(self, x):
        h = F.relu(self.fc2(F.relu(self.fc1(x))))
        return self.critic(h), self.actor(h)


class PortedA2C:
    def __init__(self):
        self.net = Net()
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=0.01)

    def greedy(self, state):
        """Returns the likeliest actions for states (B, 4), as the scripts' agents do."""
        with torch.no_grad():
            return self.net(torch.from_numpy(state))[1].argmax(1).numpy()

    def act(self, state):
        with torch.no_grad():
            return F.softmax(self.net(state)[1], dim=1).multinomial(num_samples=1)

    def update(self, observations, actions, rewards, masks):
        """A step on observations (6, 32, 4), actions and rewards (5, 32, 1), masks (6, 32, 1)."""
        returns = torch.zeros(NUM_STEPS + 1, NUM_ENVS, 1)
        with torch.no_grad():
            returns[-1] = self.net(observations[-1])[0]
        for step in reversed(range(NUM_STEPS)):
            returns[step] = returns[step + 1] * GAMMA * masks[step + 1] + rewards[step]
        values, logits = self.net(observations[:-1].view(-1, 4))
        log_probs = F.log_softmax(logits, dim=1)
        entropy = -(log_probs * F.softmax(logits, dim=1)).sum(-1).mean()
        advantages = returns[:-1] - values.view(NUM_STEPS, NUM_ENVS, 1)
        taken = log_probs.gather(1, actions.view(-1, 1)).view(NUM_STEPS, NUM_ENVS, 1)
        gain = (taken * advantages.detach()).mean()
        loss = VALUE_COEF * advantages.pow(2).mean() - gain - ENTROPY_COEF * entropy
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.net.parameters(), MAX_GRAD_NORM)
        self.optimizer.step()


def train(seed):
    """Trains until the latest episode of every environment paid +1; returns (agent, result)."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    envs = [gym.make("CartPole-v1", max_episode_steps=MAX_STEPS) for _ in range(NUM_ENVS)]
    agent, curve, of_env_0, env_steps = PortedA2C(), [], 0, 0
    observations = torch.zeros(NUM_STEPS + 1, NUM_ENVS, 4)
    masks = torch.ones(NUM_STEPS + 1, NUM_ENVS, 1)
    rewards = torch.zeros(NUM_STEPS, NUM_ENVS, 1)
    actions = torch.zeros(NUM_STEPS, NUM_ENVS, 1, dtype=torch.int64)
    obs = np.stack([env.reset(seed=seed * NUM_ENVS + i)[0] for i, env in enumerate(envs)])
    observations[0] = torch.from_numpy(obs)
    each_step = np.zeros(NUM_ENVS, int)
    final_rewards = torch.zeros(NUM_ENVS, 1)  # of the latest episode, 0 before its first end
    start = time.perf_counter()
    for _ in range(UPDATES):
        for step in range(NUM_STEPS):
            action = agent.act(observations[step])
            mask, reward = torch.ones(NUM_ENVS, 1), torch.zeros(NUM_ENVS, 1)
            for i, env in enumerate(envs):
                obs[i], _, terminated, truncated, _ = env.step(action[i].item())
                env_steps += 1
                if terminated or truncated:
                    mask[i], reward[i] = 0.0, -1.0 if each_step[i] < STOOD else 1.0
                    curve.append((int(each_step[i]) + 1, env_steps))
                    of_env_0 += i == 0
                    each_step[i] = 0
                    obs[i] = env.reset()[0]
                else:
                    each_step[i] += 1
            final_rewards = torch.where(mask == 0, reward, final_rewards)
            observations[step + 1] = torch.from_numpy(obs)
            masks[step + 1], rewards[step], actions[step] = mask, reward, action
        agent.update(observations, actions, rewards, masks)
        observations[0], masks[0] = observations[-1].clone(), masks[-1].clone()
        solved = final_rewards.sum().item() >= NUM_ENVS
        if solved:
            break
    seconds = time.perf_counter() - start
    result = {"solved": solved, "train_seconds": seconds, "curve": curve}
    return agent, result | {"episodes_of_env_0": of_env_0, "env_steps": env_steps}


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))
    import dqn_cartpole

    print("seed  solved  episodes of environment 0  of all  env steps  seconds  evaluation")
    for seed in range(int(sys.argv[1]) if len(sys.argv) > 1 else 1):
        agent, result = train(seed)
        mean = dqn_cartpole.evaluate(agent, dqn_cartpole.Config(), 2**32 + seed).mean()
        counts = f"{result['episodes_of_env_0']:25}  {len(result['curve']):6}"
        cost = f"{result['env_steps']:9,}  {result['train_seconds']:7.1f}"
        print(f"{seed:4}  {result['solved']!s:>6}  {counts}  {cost}  {mean:10.1f}")
