"""Trains extras/gridworld.py on many seeds: results/gridworld.csv.

    python benchmarks/grid.py [--seeds 100] [--jobs 2]

A line a seed: the number of places; in how many the greedy action is an optimal one; and how many steps the greedy policy
needs from the start to the goal, of which 5 are the fewest (empty: it never gets there). What is there already is not run again.
"""

import sys

from seeds import FOLDER, ROOT, run_missing

sys.path.insert(0, str(ROOT / "extras"))


def steps(q):
    """Steps of the greedy policy from the start to the goal; None if it goes round in circles."""
    import gridworld as script

    env = script.GridWorld()
    place = env.START
    for count in range(1, len(q) + 1):
        place, _ = env.move(place, q[place].argmax())
        if place == env.GOAL:
            return count
    return None


def work(task):
    """Trains on one seed."""
    import gridworld as script

    program, seed = task
    config = script.Config(seed)
    agent, _ = script.train(config)
    q, truth = script.q_values(agent), script.optimal(config.gamma)
    right = sum(truth[place][q[place].argmax()] > truth[place].max() - 1e-9 for place in q)
    row = {"program": program, "seed": seed, "places": len(q), "right": right, "steps": steps(q)}
    return {FOLDER / "gridworld.csv": row}


if __name__ == "__main__":
    run_missing(__doc__, "gridworld", ["gridworld"], work, seeds=100)
