"""How fast Breakout is learned, beside stable-baselines3: results/breakout_speed.json, dqn_speed.json.

    python benchmarks/breakout.py          a2c_breakout.py and stable-baselines3's A2C
    python benchmarks/breakout.py --dqn    extras/per_breakout.py and stable-baselines3's DQN

Each round measures, one after the other, with nothing else running, in processes of their own:

- ours: steps a second of a2c_breakout.py with its default number of threads, and with all of PyTorch's (all cores),
  in float32, and in bfloat16 where the CPU has it; the first 2,000 steps are not counted
- busy: by default, beside another process that keeps one core busy
- sb3: steps a second of stable-baselines3's A2C with 16 games, in one process (DummyVecEnv) and in 16 (SubprocVecEnv)
- environment, network: steps a second of each part of ours alone, with all cores. The limit of a loop in which they
  take turns is 1 / (1 / environment + 1 / network)
- memory: peak resident memory of our training, in GiB

With --dqn: extras/per_breakout.py and stable-baselines3's DQN. Each plays 8 games and learns four samples for each step of one.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "extras")]
RESULTS = Path(__file__).parent / "results"
WARM_UP = 2000
GAMES, BATCH = 8, 32  # of per_breakout.py, and so for stable-baselines3's DQN too


def busy(bfloat16, steps):
    """Trains beside a process that keeps one core busy."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as other:
        try:
            return ours(bfloat16, 0, steps)
        finally:
            other.kill()


def peak():
    """Peak resident memory of this process, in GiB."""
    import resource  # Windows has none

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def ours(bfloat16, all_cores, steps):
    """Trains; returns steps a second, and peak memory."""
    import a2c_breakout as script

    if not all_cores:
        script.set_threads(0)
    config = script.Config(steps=WARM_UP + steps, bfloat16=bool(bfloat16))
    marks, learn = [], script.Agent.learn

    def timed(self, rollout, next_state):
        marks.append((len(marks) * rollout.valid.numel(), time.perf_counter()))
        return learn(self, rollout, next_state)

    script.Agent.learn = timed
    script.train(config)
    (first, start), (last, end) = next(mark for mark in marks if mark[0] >= WARM_UP), marks[-1]
    return {"speed": (last - first) / (end - start), "memory": peak()}


def per(bfloat16, steps):
    """Trains extras/per_breakout.py; returns steps a second while it learns, and peak memory."""
    import per_breakout as script

    marks, learn = [], script.Agent.learn
    settings = {"learn_start": WARM_UP, "bfloat16": bool(bfloat16)}
    settings |= {"num_envs": GAMES, "batch_size": BATCH}
    config = script.Config(steps=2 * WARM_UP + steps, **settings)

    def timed(self, memory, progress):
        marks.append((round(progress * config.steps), time.perf_counter()))
        return learn(self, memory, progress)

    script.Agent.learn = timed
    script.train(config)
    (first, start), (last, end) = next(m for m in marks if m[0] >= 2 * WARM_UP), marks[-1]
    return {"speed": (last - first) / (end - start), "memory": peak()}


def environment(steps):
    """Steps the environment with random actions, as in training."""
    import numpy as np

    import a2c_breakout as script

    config = script.Config()
    num_envs = config.num_envs
    env = script.make_env(num_envs, config.max_frames)
    env.reset(seed=0)
    actions = np.random.default_rng(0).integers(4, size=((WARM_UP + steps) // num_envs, num_envs))
    for action in actions[: WARM_UP // num_envs]:
        env.step(action)
    start = time.perf_counter()
    for action in actions[WARM_UP // num_envs :]:
        env.step(action)
    return {
        "speed": num_envs * (len(actions) - WARM_UP // num_envs) / (time.perf_counter() - start)
    }


def network(bfloat16, steps):
    """Samples and learns, as in training, on states that are there already."""
    import numpy as np
    import torch

    import a2c_breakout as script

    config = script.Config(bfloat16=bool(bfloat16))
    num_envs = config.num_envs
    agent, storage, rng = script.Agent(config), script.RolloutStorage(), np.random.default_rng(0)
    torch.manual_seed(0)
    states = rng.integers(256, size=(6, num_envs, 4, 84, 84), dtype=np.uint8)
    no, reward = np.zeros(num_envs, bool), rng.random(num_envs, dtype=np.float32)

    def update():
        for state in states[:-1]:
            _, log_prob, entropy, value = agent.sample(state)
            step = script.Rollout(log_prob, entropy, value, reward, no, no, ~no)
            storage.insert(**step._asdict())
        agent.learn(storage.take(), states[-1])

    for _ in range(WARM_UP // num_envs // 5):
        update()
    start, updates = time.perf_counter(), steps // num_envs // 5
    for _ in range(updates):
        update()
    return {"speed": 5 * num_envs * updates / (time.perf_counter() - start)}


def atari_game(**settings):
    """Makes the game as stable-baselines3 expects it, in whatever process."""
    import ale_py
    import gymnasium as gym

    gym.register_envs(ale_py)
    return gym.make("BreakoutNoFrameskip-v4", **settings)


def sb3(kind, dqn, steps):
    """Trains stable-baselines3's A2C or DQN, with defaults for Atari, on stacks of four pictures."""
    from stable_baselines3 import A2C, DQN
    from stable_baselines3.common import vec_env
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_atari_env

    marks = []

    class Clock(BaseCallback):
        def _on_step(self):
            marks.append((self.num_timesteps, time.perf_counter()))
            return True

    env = make_atari_env(
        atari_game, GAMES if dqn else 16, seed=0, vec_env_cls=getattr(vec_env, kind)
    )
    env, warm_up = vec_env.VecFrameStack(env, 4), WARM_UP
    if dqn:
        warm_up *= 2
        settings = {"buffer_size": 200_000, "learning_starts": WARM_UP, "train_freq": 1}
        settings |= {"batch_size": BATCH, "gradient_steps": 1, "optimize_memory_usage": True}
        settings |= {"replay_buffer_kwargs": {"handle_timeout_termination": False}}
        model = DQN("CnnPolicy", env, seed=0, **settings)
    else:
        model = A2C("CnnPolicy", env, seed=0, ent_coef=0.01)
    model.learn(warm_up + steps, callback=Clock())
    (first, start), (last, end) = next(mark for mark in marks if mark[0] >= warm_up), marks[-1]
    env.close()
    return {"speed": (last - first) / (end - start)}


def measures(dqn):
    """The calls of a round: {name: (function, arguments)}."""
    import a2c_breakout as script

    calls = {}
    for bfloat16 in range(1 + script.cpu_has_bfloat16()):
        precision = ("float32", "bfloat16")[bfloat16]
        if dqn:
            calls[f"ours, {precision}"] = ("per", bfloat16)
        else:
            calls[f"ours, {precision}"] = ("ours", bfloat16, 0)
            calls[f"ours, all cores, {precision}"] = ("ours", bfloat16, 1)
            calls[f"busy, {precision}"] = ("busy", bfloat16)
            calls[f"network, {precision}"] = ("network", bfloat16)
    if not dqn:
        calls["environment"] = ("environment",)
    for kind in ("DummyVecEnv", "SubprocVecEnv"):
        calls[f"sb3, {kind}"] = ("sb3", kind, int(dqn))
    return calls


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5, help="(default: 5)")
    parser.add_argument(
        "--steps", type=int, default=10_000, help="counted, a measure (default: 10000)"
    )
    parser.add_argument("--dqn", action="store_true", help="prioritized replay, not A2C")
    parser.add_argument("--one", nargs="+", help=argparse.SUPPRESS)  # a measure, in this process
    options = parser.parse_args()
    if options.one:
        name, *arguments = options.one
        result = globals()[name](*(int(a) if a.isdigit() else a for a in arguments), options.steps)
        print("\n" + json.dumps(result))
        return
    found = {}
    for i in range(options.rounds):
        for name, call in measures(options.dqn).items():
            command = [sys.executable, __file__, "--steps", str(options.steps), "--one"]
            command += map(str, call)
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                sys.exit(done.stderr)
            result = json.loads(done.stdout.splitlines()[-1])
            found.setdefault(name, []).append(result)
            print(f"round {i + 1}, {name}: {result}", flush=True)
    medians = {
        name: {k: statistics.median(r[k] for r in rows) for k in rows[0]}
        for name, rows in found.items()
    }
    speeds = {name: [row["speed"] for row in rows] for name, rows in found.items()}
    summary = {"rounds": options.rounds, "steps": options.steps}
    summary |= {"medians": medians, "speeds": speeds}
    name = "dqn_speed" if options.dqn else "breakout_speed"
    (RESULTS / f"{name}.json").write_text(json.dumps(summary, indent=2) + "\n")


if __name__ == "__main__":
    main()
