"""Nets, one kind per file. A net is a `Model`: two pure functions, from any library.

`linen.pure` makes a `Model` of a Flax linen module, and `nnx.pure_nnx` of an nnx module. A net of
another library needs a few lines, as below. A key switches dropout on, and None switches it off.
`weight` changes nothing in these nets, because they have no batch statistics.

Equinox, whose nets take one example:

    import equinox as eqx
    import jax
    from jaxdl import Model

    def make(key):
        first, last = jax.random.split(key)
        layers = [eqx.nn.Linear(1, 40, key=first), eqx.nn.Lambda(jax.nn.relu)]
        return eqx.nn.Sequential([*layers, eqx.nn.Dropout(0.1), eqx.nn.Linear(40, 1, key=last)])

    _, static = eqx.partition(make(jax.random.key(0)), eqx.is_inexact_array)

    def init(key, x):
        return eqx.filter(make(key), eqx.is_inexact_array)

    def apply(params, x, *, key=None, weight=None):
        net = eqx.nn.inference_mode(eqx.combine(params, static), key is None)
        keys = jax.random.split(jax.random.key(0) if key is None else key, len(x))
        return jax.vmap(net)(x, key=keys)

    model = Model(init, apply)

Haiku:

    import haiku as hk
    import jax
    from jaxdl import Model

    def forward(x, training):
        x = jax.nn.relu(hk.Linear(40)(x))
        x = hk.dropout(hk.next_rng_key(), 0.1, x) if training else x
        return hk.Linear(1)(x)

    net = hk.transform(forward)

    def init(key, x):
        return net.init(key, x, training=False)

    def apply(params, x, *, key=None, weight=None):
        return net.apply(params, key, x, training=key is not None)

    model = Model(init, apply)
"""
