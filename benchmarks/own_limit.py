"""The scripts on CartPole-v1's own limit of 500 steps: a line of results/own_limit.csv for each training.

    python benchmarks/own_limit.py [--seeds 40] [--jobs 2]

Every script is trained on every seed with the book's limit of 200 and with --max-steps 500. Both agents are evaluated on
episodes of at most 500 steps. What is there already is not run again.
"""

from seeds import FOLDER, SCRIPTS, line, run_missing, train_script

OWN_LIMIT = 500
PROGRAMS = {  # what is typed: (script, settings)
    f"{name}_cartpole.py{words}": (name, settings)
    for name in SCRIPTS
    for words, settings in (("", {}), (f" --max-steps {OWN_LIMIT}", {"max_steps": OWN_LIMIT}))
}


def work(task):
    """Trains one script with one limit on one seed."""
    program, seed = task
    name, settings = PROGRAMS[program]
    agent, result = train_script(name, seed, **settings)
    return {FOLDER / "own_limit.csv": line(program, seed, agent, result, OWN_LIMIT)}


if __name__ == "__main__":
    run_missing(__doc__, "own_limit", list(PROGRAMS), work, seeds=40)
