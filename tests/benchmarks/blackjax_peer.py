"""MALA and HMC of BlackJAX in a process of their own: JAX does not share an environment with what gebm pins.

Reads requests from standard input, a JSON object a line, and answers each with one: `{"seconds", "acceptance"}`,
seconds of processor time; who starts it says on which core. The draws, float32 `(draws, chains, d)`, go to the file
that the request names. A request is run once to compile it, and then timed; what is timed is one jitted scan over the
draws of all chains side by side, as BlackJAX's own guide has it.
Imports nothing of gebm.
"""

import json
import sys
import time

import blackjax
import jax
import jax.numpy as jnp
import numpy as np


def log_density(request):
    """Of the target, `(d,)` to a number: `gaussian` with standard deviations `scales`, or `logistic` on a table."""
    if request["target"] == "gaussian":
        scales = jnp.asarray(request["scales"], jnp.float32)
        return lambda z: -0.5 * jnp.sum((z / scales) ** 2)
    rows = jnp.asarray(np.load(request["table"]))
    return lambda z: jnp.sum(jax.nn.log_sigmoid(rows @ z)) - 0.5 * jnp.sum(z**2)


def kernel(request, dimension):
    if request["kernel"] == "mala":
        return blackjax.mala(log_density(request), request["step_size"])
    mass = jnp.ones(dimension)
    return blackjax.hmc(log_density(request), request["step_size"], mass, request["leapfrog_steps"])


def run(request):
    start = jnp.asarray(np.load(request["start"]))  # (chains, d)
    chains, dimension = start.shape
    algorithm = kernel(request, dimension)

    def all_chains(states, key):
        states, info = jax.vmap(algorithm.step)(jax.random.split(key, chains), states)
        return states, (states.position, info.acceptance_rate)

    @jax.jit
    def draw(states, keys):
        return jax.lax.scan(all_chains, states, keys)

    states = jax.vmap(algorithm.init)(start)
    keys = jax.random.split(jax.random.key(request["seed"]), request["draws"])
    states, _ = jax.block_until_ready(draw(states, keys))  # compiles, and forgets the start
    begun = time.process_time()
    _, (positions, acceptance) = jax.block_until_ready(draw(states, keys))
    seconds = time.process_time() - begun
    np.save(request["draws_file"], np.asarray(positions))
    return {"seconds": seconds, "acceptance": float(acceptance.mean())}


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), flush=True)
