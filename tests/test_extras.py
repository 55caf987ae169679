"""The beginnings: gradients, digits, a grid world."""

import gzip
import hashlib
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT
from gymnasium.utils.env_checker import check_env

sys.path.insert(0, str(ROOT / "extras"))
import first_look
import gradients
import gridworld
import mnist

NAMES = ["first_look", "gradients", "gridworld", "mnist"]


@pytest.fixture(autouse=True)
def empty_cache(monkeypatch, tmp_path):
    """No test uses what was downloaded before."""
    monkeypatch.setattr(mnist, "CACHE", tmp_path / "cache")


@pytest.mark.parametrize("name", NAMES)
def test_the_whole_command(name, tmp_path):
    command = [sys.executable, "-W", "error", ROOT / "extras" / f"{name}.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "runs" / name / f"{name}.png").stat().st_size > 10_000
    assert len((ROOT / "extras" / f"{name}.py").read_text().splitlines()) <= 200


@pytest.mark.parametrize("module", [first_look, gradients, gridworld, mnist])
def test_bad_input_is_one_line(module, tmp_path, capsys):
    (tmp_path / "file").touch()
    for arguments in (["--output-dir", str(tmp_path / "file")], ["--seed", "x"], ["--seed", "-1"]):
        with pytest.raises(SystemExit) as end:
            module.main(arguments)
        err = capsys.readouterr().err
        assert end.value.code == 2 and err.count("\n") == 1 and arguments[1] in err


def test_a_first_look_shows_what_the_environment_returns():
    memory, frames = first_look.play(first_look.Config(seed=3))
    assert len(memory) == len(frames) == 100 and frames[0].shape == (400, 600, 3)
    falls = [t.terminated for t in memory.transitions]
    assert 2 <= sum(falls) <= 10  # pushed by chance, it falls after some twenty steps
    for before, after, fell in zip(memory.transitions, list(memory.transitions)[1:], falls):
        assert np.array_equal(before.next_state, after.state) != fell
    batch = memory.sample(32)
    assert batch.state.shape == (32, 4) and batch.action.shape == (32,)
    small = first_look.ReplayMemory(first_look.Config(memory_size=100))
    for i in range(130):
        small.push(i, 0, 0, 0, 0)
    assert len(small) == 100 and set(small.sample(100).state) == set(range(30, 130))
    assert "(32, 4)  float32" in first_look.shapes(memory, 32)
    assert len(first_look.table(memory).splitlines()) == 11


def test_gradients_reach_what_is_known():
    path = gradients.descend()
    assert np.abs(path[-1] - 1).max() < 0.05 and len(path) == 10_001
    x = np.random.default_rng(0).random((100, 1), np.float32)
    y = 5 + 2 * x
    w, b, losses = gradients.fit_line(torch.from_numpy(x), torch.from_numpy(y), steps=2000)
    slope, offset = np.polyfit(x.ravel(), y.ravel(), 1)
    assert (w, b) == pytest.approx((slope, offset), abs=1e-2) and losses[-1] < 1e-4
    inner, product = gradients.products()
    assert inner == 32 and product.tolist() == [[19, 22], [43, 50]]


def test_the_grid_world_is_an_environment_and_its_optimum_is_known():
    env = gridworld.GridWorld()
    check_env(env, skip_render_check=True)
    q = gridworld.optimal(0.9)
    assert len(q) == 10
    assert q[0, 2].max() == 1 and q[2, 0].max() == pytest.approx(0.9**4)  # five steps
    assert q[2, 3][0] == pytest.approx(-1 + 0.9)  # over the bomb
    assert env.move((2, 1), 0) == ((2, 1), 0) and env.move((0, 0), 2) == ((0, 0), 0)


def test_the_grid_world_is_learned():
    agent, history = gridworld.train(gridworld.Config(seed=0))
    q, truth = gridworld.q_values(agent), gridworld.optimal(0.9)
    place, steps = (2, 0), 0
    while place in q and steps < 10:
        assert truth[place][q[place].argmax()] == pytest.approx(truth[place].max())
        place, steps = gridworld.GridWorld().move(place, q[place].argmax())[0], steps + 1
    assert steps == 5 and np.mean(history[-100:]) < np.mean(history[:100])


def test_digits_are_read():
    _, *data = mnist.load_data()
    _, shares = mnist.train(*mnist.split(*data, 0))
    assert shares[0] < 0.3 and shares[-1] > 0.93


def test_mnist_is_downloaded_once_checked_and_else_replaced(monkeypatch, tmp_path):
    """From files of the same form, with their own checksums."""
    files, rng = {}, np.random.default_rng(0)
    for name in mnist.FILES:
        head = 16 if "images" in name else 8
        body = rng.integers(10, size=784 * 3 if head == 16 else 3, dtype=np.uint8).tobytes()
        content = gzip.compress(bytes(head) + body)
        (tmp_path / name).write_bytes(content)
        files[name] = (hashlib.md5(content).hexdigest(), head)
    monkeypatch.setattr(mnist, "FILES", files)
    url = f"file://{tmp_path}/"
    monkeypatch.setattr(mnist.download, "__defaults__", (url,))
    name, pictures, labels = mnist.load_data()
    assert (name, pictures.shape, labels.shape) == ("MNIST", (6, 784), (6,))
    for file in files:
        (tmp_path / file).write_bytes(b"another")
    assert mnist.load_data()[0] == "MNIST"  # the copy is good
    (mnist.CACHE / "t10k-labels-idx1-ubyte.gz").write_bytes(b"damaged")
    name, pictures, labels = mnist.load_data()
    assert "not the file that was expected" in name and pictures.shape == (1797, 784)
    assert 0 <= pictures.min() < pictures.max() == 1
