"""The contracts of `stateful` and `without_stats`, on a net whose every number is known."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxdl.errors import InputError
from jaxdl.models.layers.norm import RunningBatchNorm
from jaxdl.models.linen import check_images, pure, stateful, without_stats
from jaxdl.types import Model

KEY = jax.random.key(0)
X = jnp.asarray(np.random.default_rng(0).normal(2, 3, size=(64, 3)), jnp.float32)


class Net(nn.Module):
    """Batch norm and dropout, or a counter of calls in a collection of its own."""

    counts: bool = False

    @nn.compact
    def __call__(self, x: Any, mode: Any) -> Any:
        x = RunningBatchNorm()(x, mode)
        if self.counts:
            self.variable("counters", "calls", jnp.zeros, ())
        return nn.Dropout(0.5, deterministic=not self.has_rng("dropout"))(x)


def test_statistics_move_in_training_alone() -> None:
    model = stateful(Net())
    params, stats = model.init(KEY, X)
    fresh = stats["RunningBatchNorm_0"]
    # init has seen the data, and must not have counted them.
    np.testing.assert_array_equal(fresh["mean"], np.zeros(3))
    np.testing.assert_array_equal(fresh["var"], np.ones(3))
    y, same = model.apply(params, stats, X, mode="eval")
    assert same is stats
    np.testing.assert_allclose(y, X / np.sqrt(1 + 1e-5), rtol=1e-6)
    _, moved = model.apply(params, stats, X, mode="train")
    assert jax.tree.structure(moved) == jax.tree.structure(stats)
    assert all(
        not np.allclose(a, b)
        for a, b in zip(jax.tree.leaves(moved), jax.tree.leaves(stats), strict=True)
    )
    np.testing.assert_array_equal(fresh["mean"], np.zeros(3))  # and the old ones are as they were


def test_no_gradient_goes_through_the_statistics() -> None:
    model = stateful(Net())
    params, stats = model.init(KEY, X)

    def average(x: Any) -> Any:
        return jnp.sum(model.apply(params, stats, x, mode="train")[1]["RunningBatchNorm_0"]["var"])

    assert not jax.grad(average)(X).any()


def test_a_key_drops_out_in_training_and_nowhere_else() -> None:
    model = stateful(Net())
    params, stats = model.init(KEY, X)

    def zeros(**options: Any) -> float:
        return float(np.mean(np.asarray(model.apply(params, stats, X, **options)[0]) == 0))

    assert zeros(mode="train") == 0
    assert zeros(mode="eval") == 0
    assert zeros(mode="eval", key=KEY) == 0
    assert 0.3 < zeros(mode="train", key=KEY) < 0.7


def test_the_mode_must_be_given_and_known() -> None:
    model = stateful(Net())
    params, stats = model.init(KEY, X)
    with pytest.raises(TypeError, match="mode"):
        model.apply(params, stats, X)  # type: ignore[call-arg]
    with pytest.raises(InputError, match="'train' or 'eval', not 'test'"):
        model.apply(params, stats, X, mode="test")  # type: ignore[arg-type]


def test_other_collections_are_refused() -> None:
    with pytest.raises(InputError, match=r"Net keeps state in \['counters'\]"):
        stateful(Net(counts=True)).init(KEY, X)


def test_running_averages_are_no_pure_function() -> None:
    class Still(nn.Module):
        @nn.compact
        def __call__(self, x: Any) -> Any:
            return RunningBatchNorm()(x, "eval")

    with pytest.raises(InputError, match="no pure function of its parameters"):
        pure(Still()).init(KEY, X)


def test_a_model_without_statistics_passes_its_key_in_training_alone() -> None:
    seen: list[Any] = []

    def apply(params: Any, x: Any, *, key: Any = None, weight: Any = None) -> Any:
        seen.append(key)
        return params * x

    model = without_stats(Model(lambda key, x: jnp.float32(2), apply))
    params, stats = model.init(KEY, X)
    assert stats == {}
    for mode in ("train", "eval"):
        y, after = model.apply(params, stats, X, key=KEY, mode=mode)  # type: ignore[arg-type]
        np.testing.assert_array_equal(y, 2 * X)
        assert after is stats
    assert seen == [KEY, None]


class Switched(nn.Module):
    """Dropout that waits to be told, by an argument of any name."""

    inverse: bool = False

    def drop(self, x: Any, told: Any) -> Any:
        return nn.Dropout(0.5, deterministic=told if self.inverse else not told)(x)


class Train(Switched):
    @nn.compact
    def __call__(self, x: Any, train: bool = False) -> Any:
        return self.drop(x, train)


class Required(Switched):
    @nn.compact
    def __call__(self, x: Any, *, training: bool) -> Any:
        return self.drop(x, training)


class IsTraining(Switched):
    @nn.compact
    def __call__(self, x: Any, is_training: bool = True) -> Any:
        return self.drop(x, is_training)


class Deterministic(Switched):
    @nn.compact
    def __call__(self, x: Any, deterministic: bool = True) -> Any:
        return self.drop(x, deterministic)


class Learning(Switched):
    @nn.compact
    def __call__(self, x: Any, learning: bool = False) -> Any:
        return self.drop(x, learning)


class Forwarding(Switched):
    @nn.compact
    def __call__(self, x: Any, **options: Any) -> Any:
        return Train()(x, **options)


@pytest.mark.parametrize(
    ("module", "train_arg"),
    [
        (Train(), None),
        (Required(), None),
        (IsTraining(), None),
        (Deterministic(inverse=True), None),
        (Learning(), "learning"),
        (Forwarding(), "train"),
    ],
)
def test_a_key_switches_dropout_on_however_flax_is_told(module: Any, train_arg: Any) -> None:
    model = pure(module, train_arg=train_arg)
    params = model.init(KEY, X)
    np.testing.assert_array_equal(model.apply(params, X), X)
    y = np.asarray(model.apply(params, X, key=KEY))
    assert 0.3 < np.mean(y == 0) < 0.7
    np.testing.assert_array_equal(y[y != 0], 2 * np.asarray(X)[y != 0])


def test_a_switch_that_the_constructor_has_set_stays() -> None:
    model = pure(nn.Dropout(0.5, deterministic=True))
    np.testing.assert_array_equal(model.apply(model.init(KEY, X), X, key=KEY), X)


def test_a_net_under_remat_is_not_told_what_it_takes_for_granted() -> None:
    model = pure(nn.remat(Train)())
    np.testing.assert_array_equal(model.apply(model.init(KEY, X), X), X)


def test_the_name_of_the_switch_must_be_one_that_the_net_has() -> None:
    for make in (pure, stateful):
        with pytest.raises(
            InputError, match=r"Train.__call__ has no argument 'learning'.*\['x', 'train'\]"
        ):
            make(Train(), train_arg="learning")
    with pytest.raises(InputError, match="cannot be told of training"):
        stateful(nn.Dense(3))


@pytest.mark.parametrize("thing", [nn.Dense, lambda x: x, None])
def test_what_is_no_flax_module_is_refused(thing: Any) -> None:
    for make, name in ((pure, "pure"), (stateful, "stateful")):
        with pytest.raises(InputError, match=f"{name} takes a Flax module"):
            make(thing)


def test_statistics_of_a_net_that_flax_tells_of_training() -> None:
    """Flax's own batch norm: "eval" is not taken for a true value of `train`."""

    class Own(nn.Module):
        @nn.compact
        def __call__(self, x: Any, train: bool) -> Any:
            return nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)

    model = stateful(Own())
    params, stats = model.init(KEY, X)
    y, same = model.apply(params, stats, X, mode="eval")
    assert same is stats
    np.testing.assert_allclose(y, X / np.sqrt(1 + 1e-5), rtol=1e-6)
    y, moved = model.apply(params, stats, X, mode="train")
    np.testing.assert_allclose(np.mean(y, axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(moved["BatchNorm_0"]["mean"], 0.1 * X.mean(0), rtol=1e-4)


def test_images_are_checked_by_name() -> None:
    check_images(jnp.ones((0, 4, 4, 1)), "a net", least=4)
    with pytest.raises(InputError, match=r"a net needs floating-point images .* uint8 of shape"):
        check_images(jnp.ones((1, 4, 4, 1), jnp.uint8), "a net")
    with pytest.raises(InputError, match="5x5 pixels at least, not 4x6"):
        check_images(jnp.ones((1, 4, 6, 1)), "a net", least=5)
