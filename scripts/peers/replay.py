"""Time and memory of jaxdl's replay memories beside flashbax's, in turn, one process.

    PYTHONPATH=. PYTHON scripts/peers/replay.py [--capacities 1000 1000000] [--rounds 5]

PYTHON has flashbax and this project's JAX; without flashbax, jaxdl is timed alone. Figures are
microseconds: the median of the rounds. `temp` is what the program takes beside the memory itself.
"""

import argparse
import importlib.util
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxdl.replay.prioritized import prioritized
from jaxdl.replay.uniform import reservoir, ring

BATCH = 32
KEY = jax.random.key(0)
ITEMS = {
    "41 B": {"obs": 4, "next_obs": 4},
    "1 kB": {"obs": 128, "next_obs": 128},
}


class Peer(NamedTuple):
    """`init(item)`, `add(key, state, item)`, and `sample(key, state) -> (state, items)`."""

    init: Callable[[Any], Any]
    add: Callable[[Any, Any, Any], Any]
    sample: Callable[[Any, Any], Any]


def ours(rule: Any, capacity: int) -> Peer:
    memory = rule(capacity=capacity)

    def sample(key: Any, state: Any) -> Any:
        items, weights, indices = memory.sample(key, state, BATCH, is_exponent=0.5)
        state = memory.update(state, indices, jnp.abs(items["reward"]) + 0.1)
        return state, (items, weights) if rule is prioritized else items

    return Peer(memory.init, memory.add, sample)


def theirs(rule: Any, capacity: int) -> Peer:
    import flashbax

    if rule is not prioritized:
        buffer = flashbax.make_item_buffer(capacity, 1, BATCH)
        sample = lambda key, state: (state, buffer.sample(state, key).experience)  # noqa: E731
        return Peer(buffer.init, lambda _, state, item: buffer.add(state, item), sample)
    buffer = flashbax.make_prioritised_item_buffer(
        capacity, 1, BATCH, priority_exponent=0.6, device=jax.default_backend()
    )

    def learn(key: Any, state: Any) -> Any:
        found = buffer.sample(state, key)
        weights = (capacity * found.probabilities) ** -0.5
        errors = jnp.abs(found.experience["reward"]).reshape(BATCH) + 0.1
        state = buffer.set_priorities(state, found.indices, errors)
        return state, (found.experience, weights / weights.max())

    return Peer(buffer.init, lambda _, state, item: buffer.add(state, item), learn)


def total(tree: Any) -> Any:
    return sum(jnp.sum(leaf, dtype=jnp.float32) for leaf in jax.tree.leaves(tree))


def programs(peer: Peer, item: Any) -> dict[str, Any]:
    """How it is used: added to call by call, in a loop, and in a loop that also learns."""

    def adds(state: Any, steps: int) -> Any:
        body = lambda i, state: peer.add(jax.random.fold_in(KEY, i), state, item)  # noqa: E731
        return lax.fori_loop(0, steps, body, state), 0.0

    def learns(state: Any, steps: int) -> Any:
        def body(i: Any, carry: Any) -> Any:
            key = jax.random.fold_in(KEY, i)
            state, value = carry
            state, found = peer.sample(key, peer.add(key, state, item))
            return state, value + total(found)

        return lax.fori_loop(0, steps, body, (state, 0.0))

    state = jax.eval_shape(peer.init, item)
    jitted = {
        "add, jit": jax.jit(lambda state, _: (peer.add(KEY, state, item), 0.0), donate_argnums=0),
        "add, loop": jax.jit(adds, donate_argnums=0),
        "add + sample, loop": jax.jit(learns, donate_argnums=0),
    }
    return {name: program.lower(state, 1).compile() for name, program in jitted.items()}


def seconds(name: str, program: Any, state: Any, turn: float) -> tuple[float, Any]:
    """Seconds of one step, of as many as fit into a turn; and the state."""
    steps, spent = 1, 0.0
    while True:
        began = time.perf_counter()
        if name == "add, jit":
            for _ in range(steps):
                state, _ = program(state, 1)
        else:
            state, _ = program(state, steps)
        jax.block_until_ready(state)
        spent = time.perf_counter() - began
        if spent > turn / 3:
            return spent / steps, state
        steps = max(steps + 1, min(10 * steps, int(steps * turn / max(spent, 1e-6))))


def resident_mb() -> float:
    with open("/proc/self/status", encoding="ascii") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--capacities", type=int, nargs="+", default=[1000, 10**4, 10**5, 10**6])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--turn", type=float, default=0.05, help="seconds of a measurement")
    options = parser.parse_args()
    sides = {"jaxdl": ours}
    if importlib.util.find_spec("flashbax"):
        sides["flashbax"] = theirs
    print("| memory | item | capacity | state MB | what | " + " | ".join(sides) + " | temp kB |")
    print("|---" * (6 + len(sides)) + "|")
    for size, widths in ITEMS.items():
        item = {name: jnp.ones(width) for name, width in widths.items()}
        item |= {"action": jnp.int32(1), "reward": jnp.float32(1), "done": jnp.bool_(False)}
        for rule in (ring, reservoir, prioritized):
            here = {k: v for k, v in sides.items() if k == "jaxdl" or rule is not reservoir}
            for capacity in options.capacities:
                row(f"{rule.__name__} | {size} | {capacity}", rule, capacity, item, here, options)
    print(f"\nPeak resident memory {resident_mb():.0f} MB; jax {jax.__version__}.")


def row(label: str, rule: Any, capacity: int, item: Any, sides: Any, options: Any) -> None:
    peers = {side: make(rule, capacity) for side, make in sides.items()}
    states = {side: jax.jit(peer.init)(item) for side, peer in peers.items()}
    compiled = {side: programs(peer, item) for side, peer in peers.items()}
    held = sum(leaf.nbytes for leaf in jax.tree.leaves(states["jaxdl"])) / 2**20
    for what in compiled["jaxdl"]:
        found: dict[str, list[float]] = {side: [] for side in sides}
        for _ in range(options.rounds):
            for side in sides:
                program = compiled[side][what]
                spent, states[side] = seconds(what, program, states[side], options.turn)
                found[side].append(1e6 * spent)
        temps = [
            f"{programs[what].memory_analysis().temp_size_in_bytes / 1024:.1f}"
            for programs in compiled.values()
        ]
        medians = [f"{statistics.median(times):.3g}" for times in found.values()]
        medians += ["-"] * (2 - len(medians))
        print(
            f"| {label} | {held:.1f} | {what} | {' | '.join(medians)} | {', '.join(temps)} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
