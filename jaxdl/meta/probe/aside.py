"""A computation beside whatever the caller does: its result does not depend on it."""

import contextlib
from collections.abc import Iterator

import jax


@contextlib.contextmanager
def aside() -> Iterator[None]:
    """Computes at once, in float32 and on the CPU if there is one; NaN is no error.

    So it is inside `jit`, `vmap` and `grad`, and whatever the caller has set.

    >>> import jax.numpy as jnp
    >>> def traced(x):
    ...     with aside():
    ...         return x * float(jnp.sqrt(jnp.float32(4)))  # no tracer, but a number
    >>> float(jax.jit(traced)(3.0))
    6.0
    """
    with contextlib.ExitStack() as stack:
        for setting in (
            jax.ensure_compile_time_eval(),
            jax.enable_x64(False),
            jax.debug_nans(False),
            jax.debug_infs(False),
            jax.transfer_guard("allow"),
            jax.numpy_rank_promotion("allow"),
            jax.numpy_dtype_promotion("standard"),
            jax.default_matmul_precision("highest"),
        ):
            stack.enter_context(setting)
        with contextlib.suppress(RuntimeError):  # an accelerator alone is seen
            stack.enter_context(jax.default_device(jax.local_devices(backend="cpu")[0]))
        yield
