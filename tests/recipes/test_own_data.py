"""Own data in few_shot: tables by NumPy, folders of pictures, and what belongs to a run."""

import csv
import dataclasses
import json
import re
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

from experiments import few_shot
from jaxdl.errors import InputError
from jaxdl.recipes.choice import own_keywords, with_learner
from jaxdl.recipes.few_shot import TABLE_RATE, complete, failure, learner_of_images, tasks_of
from jaxdl.recipes.gradient_learners import maml_of_curves
from jaxdl.recipes.loaded import load_run
from jaxdl.recipes.own_data import NETS, content_of
from jaxdl.runs.config import RunFlags, flat, unflat
from jaxdl.runs.identity import directory

RNG = np.random.default_rng(0)


def tiny(folder, **fields):
    values = {"filters": 2, "tasks": 2, "queries": 2, "test_queries": 2, "ways": 2, "steps": 2}
    values |= {"eval_every": 2, "eval_episodes": 2, "test_episodes": 6, "pretraining_steps": 2}
    values |= {"data_dir": folder / "data"}
    for name in ["filters"] * (fields.get("data") == "table") + ["ways"] * ("task" in fields):
        del values[name]
    values |= {"table": {"hidden": (4,)}, "folder": {"size": 16}}.get(fields.get("data"), {})
    run = RunFlags(runs_dir=folder / "runs", log_every=2, devices=1)
    return unflat(few_shot.Config, {**values, **fields, "run": run})


@pytest.fixture
def table(tmp_path):
    """14 patients of 6 to 12 rows, each a line of its own slope."""
    path = tmp_path / "patients.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["dose", "sex", "answer", "patient", "kind"])
        for patient in range(14):
            for _ in range(6 + patient % 7):
                dose = 50 + 10 * RNG.normal()
                row = [dose, RNG.choice(["f", "m"]), 100 + patient * dose, f"p{patient}"]
                writer.writerow([*row, "good" if dose > 50 else "bad"])
    return path


def rows_of(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_a_task_per_group_is_a_regression_in_standard_units(table, tmp_path):
    fields = {"data": "table", "path": table, "target": "answer", "task": "patient", "shots": 3}
    tasks = tasks_of(flat(tiny(tmp_path, **fields)))
    assert (tasks.metric, tasks.ways, tasks.test_ways, tasks.labelled) == ("loss", 1, 1, None)
    scaling = tasks.scaling
    assert scaling["columns"] == ("dose", "sex=f", "sex=m", "kind=bad", "kind=good")
    rows = rows_of(table)
    by_dose = {float(row["dose"]): row for row in rows}

    def told(sample):
        """The rows of the table that some episodes hold."""
        found = []
        for i in range(40):
            episode = sample(jax.random.key(i))
            for part in episode:
                for x, y in zip(np.asarray(part.x), np.asarray(part.y), strict=True):
                    dose = x[0] * scaling["std"][0] + scaling["mean"][0]
                    row = by_dose[min(by_dose, key=lambda each: abs(each - dose))]
                    target = y[0] * scaling["target_std"] + scaling["target_mean"]
                    np.testing.assert_allclose(target, float(row["answer"]), rtol=1e-4)
                    assert x[1] == (row["sex"] == "f")
                    found.append(row["patient"])
        return set(found)

    train, validation, test = map(told, (tasks.train, tasks.validation, tasks.test))
    assert not train & validation
    assert not (train | validation) & test
    assert (len(train), len(validation), len(test)) == (9, 2, 3)
    # Standardised by the rows of the training tasks alone.
    answers = [float(row["answer"]) for row in rows if row["patient"] in train]
    np.testing.assert_allclose(scaling["target_mean"], np.mean(answers))
    np.testing.assert_allclose(scaling["target_std"], np.std(answers))
    doses = np.float32([row["dose"] for row in rows if row["patient"] in train])
    np.testing.assert_allclose(scaling["mean"], [doses.mean()], rtol=1e-6)
    np.testing.assert_allclose(scaling["std"], [doses.std()], rtol=1e-6)


@pytest.mark.slow
def test_the_regression_runs_and_the_lowest_loss_is_the_best(table, tmp_path, capsys):
    fields = {"data": "table", "path": table, "target": "answer", "task": "patient", "shots": 3}
    config = tiny(tmp_path, **fields, steps=6, lr=0.3)
    result = few_shot.main(config)
    assert set(result) >= {"maml", "support_mean"}
    assert not {"pretrained", "nearest_centroid", "nearest_centroid_cosine"} & set(result)
    assert result["maml"][0]["loss"] > 0
    shown = capsys.readouterr().out
    assert "mean squared error" in shown
    assert "mean of the support targets" in shown
    (folder,) = (tmp_path / "runs" / "few_shot").iterdir()
    assert folder.name.startswith("table-3shot-")
    assert (folder / "episode.png").exists()
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    losses = {line["step"]: line["loss"][0] for line in lines if line["split"] == "validation"}
    assert len(set(losses.values())) == 3
    assert result["best_steps"] == [min(losses, key=losses.get)] != [max(losses, key=losses.get)]


@pytest.mark.parametrize("target", ["answer", pytest.param("kind", marks=pytest.mark.slow)])
def test_a_run_of_a_table_is_loaded(target, table, tmp_path):
    fields = {"data": "table", "path": table, "target": target, "task": "patient", "shots": 3}
    config = flat(tiny(tmp_path, **fields, pretraining_steps=0))
    few_shot.main(tiny(tmp_path, **fields, pretraining_steps=0))
    (folder,) = (tmp_path / "runs" / "few_shot").iterdir()
    learner, params, _ = load_run(folder)
    tasks = tasks_of(config)
    episode = tasks.test(jax.random.key(0))
    expected = learner_of_images(config, tasks.classes, ways=tasks.test_ways, loss=tasks.loss)
    assert jax.tree.leaves(params)[-1].shape[-1] == (1 if target == "answer" else 2)
    adapted = [
        each.adapt(jax.random.key(1), params, episode.support) for each in (learner, expected)
    ]
    jax.tree.map(np.testing.assert_array_equal, *adapted)


def test_a_regression_has_the_rates_of_regressions_and_beats_the_mean(table, tmp_path):
    fields = {"data": "table", "path": table, "target": "answer", "task": "patient", "shots": 3}
    words = ["--data", "table", "--path", str(table), "--target=answer", "--task", "patient"]
    assert complete(few_shot.Config(), words[:-2]).method.inner_lr == 0.4  # without tasks: classes
    kind = [*words[:4], "--target=answer", "--task=patient", "--target-kind", "class"]
    assert complete(few_shot.Config(), kind).method.inner_lr == 0.4
    method = complete(few_shot.Config(), words).method
    assert method == own_keywords(maml_of_curves)(inner_lr=TABLE_RATE)
    implicit = complete(few_shot.Config(), [*words, "--learner", "imaml"]).method
    assert (implicit.inner_lr, implicit.inner_momentum) == (0.002, 0.8)
    lines = ["dose,answer,patient"]
    for patient in range(40):
        slope = RNG.normal()
        lines += [f"{dose},{slope * dose},{patient}" for dose in RNG.normal(size=8)]
    table.write_text("\n".join(lines))
    wider = {"steps": 400, "eval_every": 400, "lr": 0.01, "hidden": (20,), "tasks": 4}
    few = {"eval_episodes": 20, "test_episodes": 50, "test_inner_steps": 1}
    config = dataclasses.replace(tiny(tmp_path, **fields, **wider, **few), method=method)
    result = few_shot.main(config)
    assert result["maml"][0]["loss"] < 0.7 * result["support_mean"][0]["loss"]
    assert not any("is no better than the mean" in line for line in result["deviations"])


def test_a_regression_that_fails_is_told():
    losses = {"mine": {"loss": np.array([[3.0, 4.0]])}, "support_mean": {"loss": np.ones((1, 2))}}
    assert failure(losses)[0].startswith("mine is no better than the mean of the support targets.")
    assert failure({**losses, "mine": {"loss": np.array([[np.nan]])}})
    assert failure({**losses, "mine": {"loss": np.array([[0.5]])}}) == []
    assert failure({"mine": losses["mine"], "nearest_centroid": losses["support_mean"]}) == []


def test_whole_numbers_that_may_be_classes_are_told(table, tmp_path):
    table.write_text(table.read_text().replace("good", "1").replace("bad", "0"))
    fields = {"data": "table", "path": table, "target": "kind", "task": "patient", "shots": 3}
    tasks = tasks_of(flat(tiny(tmp_path, **fields)))
    assert tasks.metric == "loss"
    assert tasks.notes[-1].startswith("The target has 2 different whole numbers, taken as numbers.")
    assert tasks_of(flat(tiny(tmp_path, **fields, target_kind="class"))).metric == "accuracy"
    fields |= {"target": "answer", "target_kind": "class"}
    with pytest.raises(InputError, match="has numbers with decimals"):
        tasks_of(flat(tiny(tmp_path, **fields)))


def test_the_defaults_of_what_a_table_does_not_read_are_those_of_the_experiment():
    config = flat(few_shot.Config())
    assert config.items() >= (NETS | {"ways": 5}).items()


def test_lists_split_the_tasks_of_a_table(table, tmp_path):
    lists = tmp_path / "lists"
    lists.mkdir()
    names = [f"p{i}" for i in range(14)]
    for name, part in {"train": names[4:], "val": names[2:4], "test": names[:2]}.items():
        (lists / f"{name}.txt").write_text("\n".join(part))
    fields = {"data": "table", "path": table, "target": "answer", "task": "patient", "shots": 3}
    tasks = tasks_of(flat(tiny(tmp_path, **fields, class_lists=lists)))
    assert tasks.notes[0] == (
        "Task split: by lists of names. Sizes: 10 for train, 2 for validation, 2 for test."
    )
    answers = [float(row["answer"]) for row in rows_of(table) if row["patient"] in names[4:]]
    np.testing.assert_allclose(tasks.scaling["target_mean"], np.mean(answers))
    (lists / "test.txt").write_text("p0\nnobody")
    with pytest.raises(InputError, match="names the class nobody, but there is no such class"):
        tasks_of(flat(tiny(tmp_path, **fields, class_lists=lists)))


def test_numbers_without_tasks_are_classes_if_they_are_whole(table, tmp_path):
    fields = {"data": "table", "path": table, "target": "answer"}
    with pytest.raises(InputError, match=r"has numbers with decimals, .* For a regression give"):
        tasks_of(flat(tiny(tmp_path, **fields)))
    table.write_text(re.sub(r",p(\d)", r",1\1", table.read_text()))  # p0 becomes 10
    found = tasks_of(flat(tiny(tmp_path, **fields | {"target": "patient"})))
    assert (found.metric, found.classes) == ("accuracy", 9)


def test_too_few_classes_of_a_split_are_told_with_ways_out(table, tmp_path):
    fields = {"data": "table", "path": table, "target": "patient", "ways": 5}
    words = (
        r"the validation split has 2 of your classes, but a task takes 5. Give `ways=2`, or"
        r" `test_ways=2` with a learner such as protonet, or a split of your own by `class_lists=`"
    )
    with pytest.raises(InputError, match=words):
        tasks_of(flat(tiny(tmp_path, **fields)))
    with pytest.raises(
        InputError, match=r"train tasks \(with too few: p0, .*\): shots=30 and queries=2 need 32"
    ):
        tasks_of(flat(tiny(tmp_path, **fields | {"ways": 2, "shots": 30})))


def test_a_learner_of_labels_has_none_in_a_regression(table, tmp_path):
    fields = {"data": "table", "path": table, "target": "answer", "task": "patient", "shots": 3}
    with pytest.raises(InputError, match=r"`learner=finetune` predicts classes: choose among"):
        few_shot.main(with_learner(tiny(tmp_path, **fields), "finetune"))


@pytest.mark.slow
def test_classes_inside_each_group(table, tmp_path):
    fields = {"data": "table", "path": table, "target": "kind", "task": "patient", "shots": 3}
    tasks = tasks_of(flat(tiny(tmp_path, **fields)))
    assert (tasks.metric, tasks.ways, tasks.classes) == ("accuracy", 2, 2)
    result = few_shot.main(tiny(tmp_path, **fields))
    assert set(result) >= {"maml", "pretrained", "nearest_centroid", "nearest_centroid_cosine"}
    with pytest.raises(InputError, match=r"have all classes of its target. Leave out"):
        tasks_of(flat(tiny(tmp_path, **fields, test_ways=2)))


@pytest.mark.slow
def test_without_a_task_column_the_values_of_the_target_are_classes(table, tmp_path):
    fields = {"data": "table", "path": table, "target": "patient", "shots": 1}
    config = with_learner(tiny(tmp_path, **fields), "protonet")
    tasks = tasks_of(flat(config))
    assert (tasks.classes, tasks.ways, tasks.metric) == (9, 2, "accuracy")
    assert len(few_shot.main(config)["protonet"]) == 1


def test_another_content_of_the_file_is_another_run(table, tmp_path):
    def name(path):
        config = tiny(tmp_path, data="table", path=path, target="patient")
        return directory("few_shot", config, contents=content_of(flat(config))).name

    first = name(table)
    moved = table.rename(tmp_path / "moved.csv")
    assert name(moved) == first
    with moved.open("a") as file:
        file.write("50,f,3,p0,good\n")
    assert name(moved) != first


@pytest.fixture
def pictures(tmp_path):
    """8 classes of 4 pictures; the first of "c0" stands in "c7", too."""
    for i in range(8):
        folder = tmp_path / "pictures" / f"c{i}"
        folder.mkdir(parents=True)
        for j in range(4):
            pixels = RNG.integers(0, 255, (9, 12, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{j}.png")
    (tmp_path / "pictures/c7/0.png").write_bytes((tmp_path / "pictures/c0/0.png").read_bytes())
    return tmp_path / "pictures"


@pytest.mark.parametrize("grey", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_pictures_of_a_folder(grey, pictures, tmp_path):
    fields = {"data": "folder", "path": pictures, "grey": grey, "pretraining_steps": 0}
    config = tiny(tmp_path, **fields)
    tasks = tasks_of(flat(config))
    assert tasks.train_x.shape == (2, 16, 16, 1 if grey else 3)
    assert "Class split: 64/16/20 %" in tasks.notes[0]
    if grey:  # the smaller net
        assert len(few_shot.main(config)["maml"]) == 1


def test_equal_images_in_two_splits_are_told_and_dropped(pictures, tmp_path):
    lists = tmp_path / "lists"
    lists.mkdir()
    for name, classes in {"train": "c0 c1 c2 c3", "val": "c4 c5", "test": "c6 c7"}.items():
        (lists / f"{name}.txt").write_text(classes.replace(" ", "\n"))
    fields = {"data": "folder", "path": pictures, "class_lists": lists}
    told = tasks_of(flat(tiny(tmp_path, **fields))).notes
    assert "1 pairs of equal images lie in two splits; they are kept." in told
    dropped = tasks_of(flat(tiny(tmp_path, **fields, drop_duplicates=True)))
    expected = "Images dropped because a later split has them, too: 1 of train and 0 of validation."
    assert expected in dropped.notes


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"data": "folder"}, "`data=folder` needs a place to read. Give `path=`"),
        ({"data": "table", "path": "t.csv"}, "name of the column to predict. Give `target=`"),
        ({"data": "numbers", "grey": True}, "`data=numbers` does not read `grey=True`. Leave it"),
        ({"data": "folder", "path": ".", "target": "a"}, "does not read `target=a`"),
        ({"data": "folder", "path": ".", "hidden": (3, 3)}, "does not read `hidden=3 3`"),
        (
            {"data": "mini_imagenet", "path": ".", "class_lists": "."},
            "`data=mini_imagenet` does not read `class_lists=.`",
        ),
        ({"data": "table", "path": "t.csv", "target": "a", "norm": "support"}, "not read `norm=s"),
        (
            {"data": "table", "path": "t.csv", "target": "a", "task": "b", "ways": 3},
            "read `ways=3`",
        ),
        (
            {"data": "table", "path": "t.csv", "target": "a", "rotations": "augment"},
            "`rotations=augment` turns images, and a table has none",
        ),
        (
            {"data": "table", "path": "t.csv", "target": "a", "target_kind": "number"},
            "`target_kind=number` needs tasks",
        ),
        ({"path": "t.csv"}, "`data=numbers` reads no path. Choose `data=` among folder,"),
        ({"data": "table", "path": "none.csv", "target": "a"}, "there is no file none.csv"),
        ({"data": "folder", "path": "none"}, "there is no folder none"),
        (
            {"data": "table", "path": "t.csv", "target": "a", "test_data": "digits"},
            "cannot be tested on images. Leave out `test_data=`",
        ),
    ],
)
def test_what_is_refused(fields, words, tmp_path):
    with pytest.raises(InputError, match=words):
        few_shot.main(tiny(tmp_path, **fields))
    assert not (tmp_path / "runs").exists()


def test_other_lists_of_names_are_another_run(table, tmp_path):
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "test.txt").write_text("p0\np1")
    fields = {"data": "table", "path": table, "target": "answer", "task": "patient"}
    config = flat(tiny(tmp_path, **fields, class_lists=lists))
    before = content_of(config)
    assert content_of(config) == before != content_of({**config, "class_lists": None})
    (lists / "notes.txt").write_text("of nobody")
    assert content_of(config) == before
    (lists / "test.txt").write_text("p0\np2")
    assert content_of(config) != before


def test_pictures_that_changed_are_read_again(pictures, tmp_path):
    """In one process, as in a notebook."""
    config = flat(tiny(tmp_path, data="folder", path=pictures))
    before = content_of(config)
    assert content_of(config) == before
    (tmp_path / "elsewhere").mkdir()
    moved = next(path for path in pictures.iterdir() if path.is_dir())
    moved.rename(tmp_path / "elsewhere" / moved.name)
    moved.symlink_to(tmp_path / "elsewhere" / moved.name)  # links are followed
    first = sorted(path for path in moved.resolve().iterdir() if path.is_file())[0]
    shutil.copy(first, first.with_name(f"again{first.suffix}"))
    assert content_of(config) != before


def test_a_head_for_pictures_in_one_colour_is_refused_in_three(pictures, tmp_path):
    with pytest.raises(InputError, match="`head=normal` is for images in one colour"):
        tasks_of(flat(tiny(tmp_path, data="folder", path=pictures, head="normal")))
