"""What an inner optimiser is made of, and what to use in its place.

The transformations of Optax are closures without names. Their functions have names, and these say
where a function was made. They serve the text of a message alone; `verdict` finds the fault itself.
"""

import contextlib

import optax

from jaxdl.types import PyTree

DEFAULT = "optax.sgd, optax.yogi or jaxdl.meta.inner.adam"

AT_ZERO = {
    "scale_by_trust_ratio": DEFAULT,
    "scale_by_factored_rms": DEFAULT,
    "schedule_free": DEFAULT,
    "scale_by_radam": "jaxdl.meta.inner.radam",
    "scale_by_adam": "jaxdl.meta.inner.adam, or give eps_root=1e-8",
    "scale_by_amsgrad": "jaxdl.meta.inner.adam, or give eps_root=1e-8",
    "scale_by_ademamix": "jaxdl.meta.inner.adam, or give eps_root=1e-8",
    "scale_by_belief": "jaxdl.meta.inner.adam, or give eps_root=1e-8",
    "scale_by_rms": "jaxdl.meta.inner.rmsprop, or give eps_in_sqrt=True",
    "scale_by_stddev": "jaxdl.meta.inner.rmsprop, or give eps_in_sqrt=True",
    "clip_by_global_norm": "jaxdl.meta.inner.clip_by_global_norm",
    "clip_by_block_rms": "jaxdl.meta.inner.clip_by_global_norm",
    "adaptive_grad_clip": "jaxdl.meta.inner.clip_by_global_norm",
    "normalize_by_update_norm": "jaxdl.meta.inner.clip_by_global_norm",
    "scale_by_polyak": "optax.polyak_sgd with eps=1e-6",
}
"""For parts that fail where a gradient is zero; the first that is found counts."""

LBFGS = "optax.chain(optax.scale_by_lbfgs(scale_init_precond=False), optax.scale(-lr))"
IN_GENERAL = {
    "scale_by_lbfgs": LBFGS,
    "scale_by_radam": "jaxdl.meta.inner.radam",
}
"""For parts that fail everywhere."""

WRAPPERS = {"chain", "named_chain", "with_extra_args_support", "identity", "scale"}


def parts(tx: optax.GradientTransformation) -> list[str]:
    """The names of the functions of Optax that made the parts of a transformation.

    >>> import optax
    >>> parts(optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.1)))
    ['clip_by_global_norm', 'scale_by_adam']
    >>> parts(optax.inject_hyperparams(optax.adam)(learning_rate=0.1))
    ['inject_hyperparams', 'scale_by_adam']
    """
    names: dict[str, None] = {}
    seen: set[int] = set()

    def visit(item: PyTree) -> None:
        if id(item) in seen:
            return
        seen.add(id(item))
        if isinstance(item, tuple | list):
            for each in item:
                visit(each)
        elif str(getattr(item, "__module__", "")).startswith("optax"):
            name, inside, _ = getattr(item, "__qualname__", "").partition(".<locals>.")
            if inside and name not in WRAPPERS:
                names[name] = None
            if name == "inject_hyperparams":
                for cell in item.__closure__:
                    with contextlib.suppress(TypeError, AttributeError):  # not the factory
                        visit(cell.cell_contents(1.0).update)
            for cell in getattr(item, "__closure__", None) or ():
                with contextlib.suppress(ValueError):  # a cell may be empty
                    visit(cell.cell_contents)

    visit(tx.update)
    return list(names)


def cure(tx: optax.GradientTransformation, table: dict[str, str]) -> str:
    """What to use instead, by the first entry of a table that is among the parts.

    >>> import optax
    >>> cure(optax.adam(0.1), AT_ZERO)
    'jaxdl.meta.inner.adam, or give eps_root=1e-8'
    """
    found = parts(tx)
    return next((text for name, text in table.items() if name in found), DEFAULT)
