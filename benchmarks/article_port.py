"""The book's four Q-learning programs on today's libraries: the yardstick of benchmarks/seeds.py.

It re-creates the programs of the repository of the book 「つくりながら学ぶ!深層強化学習」,
https://github.com/YutaroOgawa/Deep-Reinforcement-Learning-Book (MIT License, Copyright (c) 2018 Yutaro Ogawa).

Settings and data structures are theirs: a 4-32-32-2 network, Adam at 1e-4, a list of namedtuples taken apart with zip
and cat, one update a step, +1 for reaching the limit as if it were an end, and for prioritized replay the TD errors
of the whole memory anew after every episode. Two faults are mended, in the port's favour: the walk along the running
sum returns the transition it drew (theirs returned its neighbour), and a batch of nothing but falls does not crash.
"""

import random
import time
from collections import namedtuple

import gymnasium as gym
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

VARIANTS = ("dqn", "ddqn", "dueling", "per")
CAPACITY, BATCH_SIZE, GAMMA, EPISODES, MAX_STEPS, STOOD = 10_000, 32, 0.99, 500, 200, 195
UNIFORM_EPISODES, TD_ERROR_EPSILON = 30, 1e-4
Transition = namedtuple("Transition", ("state", "action", "next_state", "reward"))


class RingList:
    """A list that overwrites its oldest entry once it holds CAPACITY of them."""

    def __init__(self):
        self.items, self.position = [], 0

    def push(self, item):
        if len(self.items) < CAPACITY:
            self.items.append(None)
        self.items[self.position] = item
        self.position = (self.position + 1) % CAPACITY


class Net(nn.Module):
    def __init__(self, dueling):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(4, 32), nn.Linear(32, 32)
        self.advantage = nn.Linear(32, 2)
        self.value = nn.Linear(32, 1) if dueling else None

    def forward(self, x):
        h = F.relu(self.fc2(F.relu(self.fc1(x))))
        advantage = self.advantage(h)
        if self.value is None:
            return advantage
        return self.value(h) + advantage - advantage.mean(1, keepdim=True)


class PortedAgent:
    def __init__(self, variant):
        self.variant = variant
        self.memory, self.td_errors = RingList(), RingList()
        self.main = Net(variant == "dueling")
        self.target = Net(variant == "dueling")
        self.target.load_state_dict(self.main.state_dict())
        self.optimizer = torch.optim.Adam(self.main.parameters(), lr=1e-4)

    def greedy(self, state):
        """Returns the greedy actions for states (B, 4), as the scripts' agents do."""
        with torch.no_grad():
            return self.main(torch.from_numpy(state)).argmax(1).numpy()

    def explore(self, state, epsilon):
        if epsilon <= random.uniform(0, 1):
            self.main.eval()
            with torch.no_grad():
                return self.main(state).max(1)[1].view(1, 1)
        return torch.LongTensor([[random.randrange(2)]])

    def values_and_targets(self, transitions):
        batch = Transition(*zip(*transitions, strict=True))
        state, action, reward = (
            torch.cat(batch.state),
            torch.cat(batch.action),
            torch.cat(batch.reward),
        )
        alive = torch.tensor([s is not None for s in batch.next_state])
        next_q = torch.zeros(len(transitions))
        self.main.eval()
        self.target.eval()
        q = self.main(state).gather(1, action)
        if alive.any():
            next_state = torch.cat([s for s in batch.next_state if s is not None])
            if self.variant == "dqn":  # this chapter has no target network
                next_q[alive] = self.main(next_state).max(1)[0].detach()
            else:
                best = self.main(next_state).detach().max(1)[1].view(-1, 1)
                next_q[alive] = self.target(next_state).gather(1, best).detach().squeeze(1)
        return q, reward + GAMMA * next_q

    def draw(self, episode):
        if self.variant != "per" or episode < UNIFORM_EPISODES:
            return random.sample(self.memory.items, BATCH_SIZE)
        errors = [abs(e) + TD_ERROR_EPSILON for e in self.td_errors.items]
        drawn, index, running = [], 0, errors[0]
        for point in np.sort(np.random.uniform(0, sum(errors), BATCH_SIZE)):
            while running < point and index < len(errors) - 1:
                index += 1
                running += errors[index]
            drawn.append(self.memory.items[index])
        return drawn

    def learn(self, episode):
        if len(self.memory.items) < BATCH_SIZE:
            return
        q, target = self.values_and_targets(self.draw(episode))
        self.main.train()
        loss = F.smooth_l1_loss(q, target.unsqueeze(1))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def end_of_episode(self, episode):
        if self.variant == "per":
            with torch.no_grad():
                q, target = self.values_and_targets(self.memory.items)
            self.td_errors.items = (target - q.squeeze(1)).tolist()
        if episode % 2 == 0:
            self.target.load_state_dict(self.main.state_dict())


def train(variant, seed):
    """Trains one variant until ten episodes in a row stood; returns (agent, result)."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)
    env = gym.make("CartPole-v1", max_episode_steps=MAX_STEPS)
    env.reset(seed=seed)
    agent, in_a_row, curve, env_steps = PortedAgent(variant), 0, [], 0
    start = time.perf_counter()
    for episode in range(EPISODES):
        state = torch.from_numpy(env.reset()[0]).unsqueeze(0)
        for step in range(1, MAX_STEPS + 1):
            action = agent.explore(state, 0.5 / (episode + 1))
            next_state, _, terminated, truncated, _ = env.step(action.item())
            done = terminated or truncated
            reward = 0.0 if not done else (1.0 if step >= STOOD else -1.0)
            next_state = None if done else torch.from_numpy(next_state).unsqueeze(0)
            agent.memory.push(Transition(state, action, next_state, torch.FloatTensor([reward])))
            agent.td_errors.push(0.0)
            agent.learn(episode)
            state = next_state
            if done:
                break
        env_steps += step
        curve.append((step, env_steps))
        agent.end_of_episode(episode)
        in_a_row = in_a_row + 1 if step >= STOOD else 0
        if in_a_row == 10:
            break
    seconds = time.perf_counter() - start
    return agent, {"solved": in_a_row == 10, "train_seconds": seconds, "curve": curve}
