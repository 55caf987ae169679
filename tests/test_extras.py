"""The beginnings: gradients, digits, a grid world, a first look."""

import ast
import gzip
import hashlib
import http.server
import importlib
import re
import subprocess
import sys
import threading
import types
from pathlib import Path

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

MODULES = [first_look, gradients, gridworld, mnist]


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    """No test downloads anything, or uses what was downloaded before."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(mnist, "CACHE", tmp_path / "cache")


KNOWN = {  # what a command says that can only be so
    "first_look": "terminated",
    "gradients": "from (0, 2) to (0.994, 0.989); lowest at (1, 1)",
    "mnist": "Read correctly",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", KNOWN)
def test_the_whole_command(name, tmp_path):
    command = [sys.executable, "-W", "error", ROOT / "extras" / f"{name}.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith(f"Results are in {Path('runs', name)}.\n")
    assert KNOWN[name] in done.stdout
    assert (tmp_path / "runs" / name / f"{name}.png").stat().st_size > 10_000


@pytest.mark.parametrize("module", MODULES)
def test_bad_input_is_one_line(module, tmp_path, capsys):
    (tmp_path / "file").touch()
    bad = [
        ["--output-dir", str(tmp_path / "file")],
        ["--output-dir", str(tmp_path / "file" / "below")],
        ["--seed", "x"],
        ["--seed", "-1"],
    ]
    for arguments in bad:
        with pytest.raises(SystemExit) as end:
            module.main(arguments)
        out, err = capsys.readouterr()
        assert (end.value.code, out, err.count("\n")) == (2, "", 1)
        assert arguments[1] in err


@pytest.mark.parametrize("name", ["gridworld", *KNOWN])
def test_in_a_notebook_run_reads_flags_and_a_cell_does_not(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "ipykernel", types.ModuleType("ipykernel"))
    path = ROOT / "extras" / f"{name}.py"
    last = ast.parse(path.read_text(encoding="utf-8")).body[-1]
    last_lines = compile(ast.Module([last], []), path, "exec")
    given = []
    for form in (str(path), f"extras/{name}.py", f"{name}.py", name):
        monkeypatch.setattr(sys, "argv", [form, "--seed", "3"])
        exec(last_lines, {"__name__": "__main__", "sys": sys, "main": given.append})
    assert given == [["--seed", "3"]] * 4
    monkeypatch.setattr(sys, "argv", ["/x/ipykernel_launcher.py", "-f", "kernel.json"])
    exec(last_lines, {"__name__": "__main__", "sys": sys, "main": given.append})
    assert given[-1] == []


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


@pytest.mark.parametrize("seed", range(3))
def test_the_pictures_of_a_first_look_end_with_the_first_fall(seed):
    memory, frames = first_look.play(first_look.Config(seed=seed))
    fall = [t.terminated for t in memory.transitions].index(True)
    figure = first_look.draw(memory, frames)
    drawn = [axes for axes in figure.axes if axes.images]
    assert 8 <= len(drawn) <= 12
    figure.draw_without_rendering()  # puts all in place
    for axes, step in ((drawn[0], 0), (drawn[-1], fall)):
        picture = axes.images[0].get_array()
        assert np.array_equal(picture, frames[step][140:340])
        assert (picture == 0).all(-1).any()  # the black cart is in it
    assert drawn[0].get_position().width * figure.get_size_inches()[0] > 2.5  # inches


@pytest.mark.slow
def test_gradients_reach_what_is_known():
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


@pytest.mark.slow
def test_the_grid_world_is_learned(tmp_path, capsys):
    agent = gridworld.main(["--output-dir", str(tmp_path)])
    out = capsys.readouterr().out
    assert re.search(r"right in \d+ of 10 places", out) and "Results are in" in out
    assert (tmp_path / "gridworld.png").stat().st_size > 10_000
    q, truth = gridworld.q_values(agent), gridworld.optimal(0.9)
    place, steps = (2, 0), 0
    while place in q and steps < 10:
        assert truth[place][q[place].argmax()] == pytest.approx(truth[place].max())
        place, steps = gridworld.GridWorld().move(place, q[place].argmax())[0], steps + 1
    assert steps == 5


@pytest.mark.parametrize("episodes", [20, 1000])
def test_the_picture_of_the_grid_world_can_be_read(episodes):
    """No text is small, and none covers another."""
    q = gridworld.optimal(0.9)
    figure = gridworld.draw(q, q, [0.1] * episodes)
    figure.canvas.draw()
    for axes in figure.axes:
        texts = [text for text in axes.texts if text.get_text()]
        boxes = [text.get_window_extent() for text in texts]
        assert all(text.get_fontsize() >= 9 for text in texts)
        for i, box in enumerate(boxes):
            covered = [texts[j] for j in range(i) if box.overlaps(boxes[j])]
            assert not covered, (texts[i], covered)


def test_digits_are_read():
    _, *data = mnist.load_data()
    _, shares = mnist.train(*mnist.split(*data, 0))
    assert shares[0] < 0.3 and shares[-1] > 0.93


@pytest.mark.parametrize("mistakes", [0, 5, 11, 30])
@pytest.mark.parametrize("first", [0, 1])
def test_the_picture_of_the_digits_shows_the_first_and_the_mistakes(first, mistakes):
    pictures = torch.rand(40, 784)
    labels = torch.arange(40) % 10
    predictions = labels.clone()
    predictions[0] += first
    predictions[1 : mistakes + 1] += 1
    figure = mnist.draw(pictures, labels, predictions)
    drawn = [axes for axes in figure.axes if axes.images]
    assert len(drawn) == 1 + min(mistakes, 17)
    for i, axes in enumerate(drawn):
        assert np.array_equal(axes.images[0].get_array().ravel(), pictures[i].numpy())
        assert axes.get_title() == f"read {predictions[i]}, is {labels[i]}"


@pytest.fixture
def source(monkeypatch, tmp_path):
    """Files of the form of MNIST's, three digits each, with their own checksums."""
    files = {}
    rng = np.random.default_rng(0)
    for name in mnist.FILES:
        head = 16 if "images" in name else 8
        body = rng.integers(10, size=784 * 3 if head == 16 else 3, dtype=np.uint8).tobytes()
        content = gzip.compress(bytes(head) + body)
        (tmp_path / name).write_bytes(content)
        files[name] = (hashlib.md5(content).hexdigest(), head)
    monkeypatch.setattr(mnist, "FILES", files)
    monkeypatch.setattr(mnist, "URL", tmp_path.as_uri() + "/")
    return tmp_path


def test_mnist_is_downloaded_once_checked_and_else_replaced(source):
    name, pictures, labels = mnist.load_data()
    assert (name, pictures.shape, labels.shape) == ("MNIST", (6, 784), (6,))
    assert sorted(path.name for path in mnist.CACHE.iterdir()) == sorted(mnist.FILES)
    for file in mnist.FILES:
        (source / file).write_bytes(b"another")
    assert mnist.load_data()[0] == "MNIST"  # the copy is good
    (mnist.CACHE / "t10k-labels-idx1-ubyte.gz").write_bytes(b"damaged")
    name, pictures, labels = mnist.load_data()
    assert "not the file that was expected" in name and pictures.shape == (1797, 784)
    assert 0 <= pictures.min() < pictures.max() == 1


def test_a_cache_that_cannot_be_written_costs_nothing_but_the_cache(source, monkeypatch):
    monkeypatch.setattr(mnist, "CACHE", source / next(iter(mnist.FILES)) / "below a file")
    assert mnist.load_data()[0] == "MNIST"


def test_the_cache_is_the_users_own(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own"))
    assert importlib.reload(mnist).CACHE.is_relative_to(tmp_path / "own")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert importlib.reload(mnist).CACHE.is_relative_to(tmp_path / ".cache")


class Stopping(http.server.BaseHTTPRequestHandler):
    """Promises a thousand bytes and sends ten."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b"0123456789")

    def log_message(self, *_):
        pass


def test_a_download_that_stops_early_gives_the_small_digits(monkeypatch):
    server = http.server.HTTPServer(("127.0.0.1", 0), Stopping)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(mnist, "URL", f"http://127.0.0.1:{server.server_port}/")
    name, pictures, _ = mnist.load_data()
    server.shutdown()
    server.server_close()
    assert "IncompleteRead" in name and pictures.shape == (1797, 784)
    assert not mnist.CACHE.exists()


def test_without_scikit_learn_it_says_what_to_install(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(SystemExit) as end:
        mnist.main(["--output-dir", str(tmp_path)])
    err = capsys.readouterr().err
    assert end.value.code == 2 and err.count("\n") == 1
    assert "MNIST could not be loaded" in err and "pip install scikit-learn" in err
