"""What the tests share: the scripts as modules, and a way to run one as a learner does."""

import gc
import importlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ale_py.vector_env import AtariVectorEnv

os.environ["OMP_NUM_THREADS"] = "1"  # one test a core, as two run at a time
os.environ["CUDA_VISIBLE_DEVICES"] = ""  # histories are the same to the bit on CPUs only
# What a shell starts with & ignores Ctrl-C, and so would each program that a test starts
signal.signal(signal.SIGINT, signal.default_int_handler)
ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]
Q_NAMES = ["dqn_cartpole", "ddqn_cartpole", "dueling_cartpole", "per_cartpole"]
A2C_NAMES = ["a2c_cartpole", "a2c_breakout"]
CARTPOLE_NAMES = [*Q_NAMES, "a2c_cartpole"]
ALL_NAMES = [*CARTPOLE_NAMES, "a2c_breakout"]


def pytest_unconfigure():
    """Free the games that tests left somewhere, or ale-py's library complains of leaks."""
    for thing in gc.get_objects():
        if type(thing) is AtariVectorEnv:
            vars(thing).pop("ale", None)


@pytest.fixture(autouse=True)
def no_gpu_of_apple(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.fixture(autouse=True)
def no_notebook(monkeypatch):
    """A test that ran a kernel may leave ipykernel imported: scripts would show pictures then."""
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)


class Scripted:
    """Stands for AtariVectorEnv: lives and games end where a list of random numbers says so."""

    def __init__(self, num_envs, rng):
        self.n = num_envs
        self.rng = rng
        self.scores = []  # of the games that ended

    def observe(self):
        return self.rng.integers(1, 256, (self.n, 1, 84, 84), dtype=np.uint8)

    def reset(self, seed):
        self.lives = np.full(self.n, 5)
        self.over = np.zeros(self.n, bool)
        self.score = np.zeros(self.n, int)
        return self.observe(), {"lives": self.lives.copy()}

    def step(self, action):
        lost, cut = self.rng.random((2, self.n)) < [[0.3], [0.1]]
        self.lives = np.where(self.over, 5, self.lives - lost)
        terminated = (self.lives == 0) & ~self.over
        truncated = cut & ~self.over
        reward = np.where(self.over, 0, self.rng.integers(0, 8, self.n))
        self.score = np.where(self.over, 0, self.score) + reward
        self.over = terminated | truncated
        self.scores += self.score[self.over].tolist()
        return self.observe(), reward, terminated, truncated, {"lives": self.lives.copy()}


def scripts(*names):
    """Run a test with each of these scripts, given as `script`."""
    return pytest.mark.parametrize("script", names, indirect=True)


@pytest.fixture
def script(request):
    """A script, imported."""
    return importlib.import_module(request.param)


@pytest.fixture
def start(tmp_path):
    """start(name, *arguments): a script as a process in an empty folder, warnings are errors."""
    running = []

    def start(name, *arguments):
        command = [sys.executable, "-u", "-W", "error", ROOT / f"{name}.py", *map(str, arguments)]
        hidden = ("DISPLAY", "SDL_VIDEODRIVER", "MPLBACKEND")
        environment = {k: v for k, v in os.environ.items() if k not in hidden}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen(command, cwd=tmp_path, env=environment, **pipes)
        running.append(process)
        return process

    yield start
    for process in running:
        process.kill()
        process.communicate()


@pytest.fixture
def run(start):
    """run(name, *arguments): the same, waited for; returns (exit status, stdout, stderr)."""

    def run(name, *arguments):
        process = start(name, *arguments)
        out, err = process.communicate(timeout=600)
        return process.returncode, out, err

    return run
