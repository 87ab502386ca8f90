"""docs/results.md says what the stored results say; `scripts/reproduce` runs and checks rows."""

import importlib
import itertools
import json
import tarfile

import numpy as np
import pytest
from matplotlib.figure import Figure

from experiments.tables import document, few_shot, figure, reproduce, sines, stored
from experiments.tables.measures import MEASURES
from experiments.tables.rows import TABLES, Row, Table
from jaxdl.errors import InputError, RunError
from jaxdl.runs.config import flat
from jaxdl.runs.journal import Journal
from jaxdl.runs.supervise import SECONDS
from tests.project import ROOT

ROWS = [(name, row) for name, table in TABLES.items() for row in table.rows]
REPORTS = {name for name, (writer, _) in document.RESULTS.items() if writer is document.reports}
STORED = [(name, row.name) for name, row in ROWS if stored.place(name, row.name).result.exists()]
PLACES = (("new", ""), ("old", "| a |\n"))
REPORTED = [(name, row) for name, row in STORED if name in REPORTS]


@pytest.mark.parametrize("name", document.DOCUMENTS)
def test_the_tables_of_a_document_are_those_of_the_stored_results(name):
    text = (stored.DOCS / name).read_text("utf-8")
    command = "python -c 'from experiments.tables import document; document.write()'"
    assert document.written(text, document.DOCUMENTS[name]) == text, f"run .venv/bin/{command}"


def test_the_figure_is_that_of_the_stored_curves():
    command = "python -c 'from experiments.tables import document; document.write()'"
    assert figure.FIGURE.read_text("utf-8") == figure.drawn(), f"run .venv/bin/{command}"


def test_a_line_of_the_figure_is_the_curve_of_its_row():
    drawn = Figure()
    figure.draw(drawn)
    (axis,) = drawn.axes
    lines = {line.get_label(): line for line in axis.lines}
    stored_rows = stored.results_of(figure.TABLE)
    assert len(lines) == sum(bool(row.get("curve")) for row in stored_rows.values()) > 0
    curve = stored_rows["anil"]["curve"]
    x, y = lines["ANIL"].get_data()
    np.testing.assert_array_equal(x, curve["minutes"])
    np.testing.assert_allclose(y, 100 * np.array(curve["accuracy"]))
    last = [line.get_ydata()[-1] for line in axis.lines]
    assert last == sorted(last, reverse=True)


def test_an_empty_place_of_a_document_is_filled_and_its_neighbours_stay():
    empty, full = (f"<!-- results/{name} -->\n{rows}<!-- end -->\n" for name, rows in PLACES)
    writers = {"new": (lambda table: f"of {table} \\d", "b")}
    found = document.written(f"{empty}text\n{full}", writers)
    assert found == f"<!-- results/new -->\nof b \\d\n<!-- end -->\ntext\n{full}"


def test_every_stored_file_belongs_to_a_row():
    found = {path for path in stored.RESULTS.rglob("*") if path.is_file()}
    assert found <= {path for name, row in ROWS for path in stored.place(name, row.name)}


@pytest.mark.parametrize(("table", "row"), STORED, ids=map("-".join, STORED))
def test_a_stored_result_has_what_makes_it_again_and_no_folder(table, row):
    text = stored.place(table, row).result.read_text("utf-8")
    found = json.loads(text)
    assert stored.without_places({**found, "run": {**found["run"], "directory": "x"}}) == found
    assert not any(place in text for place in ("/tmp", "/home", "/root", "/work"))
    assert {"command", "packages", "device", "steps", "wall_seconds"} <= found["run"].keys()
    assert "batch norm" in reproduce.record(table, TABLES[table].row(row), found)
    assert found.get("split") or TABLES[table].experiment == "dqn"  # which has no examples


@pytest.mark.parametrize(("table", "row"), STORED, ids=map("-".join, STORED))
def test_a_row_runs_what_made_its_stored_number(table, row):
    asked = flat(TABLES[table].configuration(TABLES[table].row(row)))
    asked = json.loads(json.dumps(asked, default=str))
    made = json.loads(stored.place(table, row).result.read_text("utf-8"))["config"]
    if made.get("estimator") == "exact":  # which "auto" chooses for so few steps
        made["estimator"] = "auto"
    assert {name: asked[name] for name in made} == made


@pytest.mark.parametrize(("table", "row"), STORED, ids=map("-".join, STORED))
def test_all_that_is_known_of_a_row_can_be_told(table, row):
    result = stored.result_of(table, row)
    shown = reproduce.record(table, TABLES[table].row(row), result)
    assert reproduce.told(table, row, result) in shown
    assert result["run"]["command"].partition(".py")[2] in shown


@pytest.mark.parametrize("experiment", list(dict.fromkeys(t.experiment for t in TABLES.values())))
def test_every_experiment_of_a_table_has_a_measure_and_a_report(experiment):
    assert MEASURES[experiment].unit
    assert callable(importlib.import_module(f"experiments.reports.{experiment}").report)


@pytest.mark.parametrize(("table", "row"), REPORTED, ids=map("-".join, REPORTED))
def test_the_numbers_of_a_row_are_among_those_that_its_run_printed(table, row):
    result, measure = stored.result_of(table, row), MEASURES[TABLES[table].experiment]
    printed = document.report_of(table, row, result)
    for by_seed in measure.numbers(result, stored.learner_of(result)):
        assert f" {np.mean(by_seed):.{measure.digits}f} " in printed


@pytest.mark.parametrize(
    ("table", "folder"),
    {
        "mnist": "mnist/cnn",
        "long-memory": "sequences/adding",
        "limited-data": "limited_data/digits",
        "transfer": "transfer/digits",
        "multitask": "multitask/overlaid",
        "continual": "continual/rotations",
        "dqn": "dqn/cartpole",
        "navigation": "navigation/",
    }.items(),
)
def test_the_numbers_of_a_tiny_run_are_among_those_that_it_printed(table, folder):
    """An older revision stored them, of the experiments that compare several methods."""
    with tarfile.open(ROOT / "tests" / "fixtures" / "runs_0_1.tar.xz") as archive:
        (path,) = (
            name
            for name in archive.getnames()
            if name.startswith(f"./runs/{folder}") and name.count("/") == 4
            if name.endswith("result.json")
        )
        result = stored.without_places(json.load(archive.extractfile(path)))
    measure = MEASURES[TABLES[table].experiment]
    printed = document.report_of(table, "tiny", result)
    numbers = measure.numbers(result, stored.learner_of(result))
    assert numbers
    for by_seed in numbers:
        assert len(by_seed) == result["config"]["seeds"]
        assert f" {np.mean(by_seed):.{measure.digits}f} " in printed
    assert f"`scripts/reproduce {table} tiny`" in document.as_page(printed)


def test_a_report_becomes_a_page():
    one, two, three = (f"| {name} |\n| :- |\n| 1 |" for name in "abc")
    found = document.as_page(f"in %\n{one}\nminus\n{two}\n{three}\n" + "so " * 50 + "\n\n9 s")
    first, *_, notes = found.split("\n\n")
    assert found.startswith(f"in %\n\n{one}\n\nminus\n\n{two}\n\n{three}\n\n- so")
    assert first == "in %"
    assert [line[:2] for line in notes.split("\n")] == ["- ", "  ", "- "]
    assert notes.replace("\n  ", " ").split() == ["-", *["so"] * 50, "-", "9", "s"]


def test_weights_are_small():
    for name, row in STORED:
        weights = stored.place(name, row).weights
        assert not weights.exists() or weights.stat().st_size <= stored.MOST_BYTES


def test_what_decides_is_paired_by_seed(monkeypatch):
    """The seeds differ by 20 points, and the change costs each of them 1 point."""

    def result(*accuracies):
        seeds = [{"accuracy": accuracy} for accuracy in accuracies]
        run = {"steps": 500, "wall_seconds": 60.0}
        return {"maml": seeds, "untrained": seeds, "nearest_centroid": seeds, "run": run}

    found = {"base": result(0.7, 0.8, 0.9), "loss-sum": result(0.69, 0.79, 0.89)}
    monkeypatch.setattr(few_shot, "results_of", lambda table: found)
    header, base, changed = few_shot.what_decides("what-decides")
    assert [row[header.index("minus the first")] for row in (base, changed)] == ["", "-1.00 ± 0.00"]
    assert changed[header.index("mean, ± over seeds")] == "79.00 ± 24.84"


def test_the_curve_of_a_row_is_that_of_its_validations(tmp_path):
    journal, times = Journal(tmp_path), Journal(tmp_path, name=SECONDS)
    journal.append(10, "validation", {"accuracy": [0.5, 0.7]})
    journal.append(20, "train", {"accuracy": [0.9, 0.9]})
    for step, seconds in ((5, 70), (15, 190)):
        times.append(step, "train", {"seconds": seconds, "compile_seconds": 10})
    found = stored.curve_of(tmp_path)
    assert found == {"step": [10], "accuracy": [pytest.approx(0.6)], "minutes": [2.0]}


# ---- scripts/reproduce

TINY = Table(
    "sinusoid",
    "--steps 40 --tasks 4 --test-tasks 20 --seeds 2 --log-every 20",
    (Row("maml", "", 1.0),),
)


@pytest.fixture
def house(tmp_path, monkeypatch):
    """Tables with one tiny row, whose results go to a folder of their own."""
    monkeypatch.setitem(TABLES, "tiny", TINY)
    monkeypatch.setattr(stored, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(document, "write", lambda: None)
    monkeypatch.setenv("JAXDL_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return tmp_path


def ask(*names, **options):
    reproduce.main(reproduce.Arguments(names, **options))


@pytest.mark.slow
def test_a_row_runs_is_stored_and_its_weights_have_its_number(house, capfd):
    ask("tiny", "maml", budget=10)
    shown = capfd.readouterr().out
    result = json.loads((house / "results" / "tiny" / "maml.json").read_text())
    assert len(result["maml"]) == 2
    mean = np.mean([seed["5-shot/1"]["mean"] for seed in result["maml"]])
    assert f"tiny maml: {mean:.3f} ± " in shown
    assert "command             scripts/run sinusoid --steps 40" in shown
    assert result["curve"] == {}  # sinusoid has no validation

    ask("tiny")  # nothing is missing, so nothing runs
    assert "step" not in capfd.readouterr().err

    ask("tiny", check=True)
    assert capfd.readouterr().out.rstrip().endswith(" yes |")

    path = house / "results" / "tiny" / "maml.json"
    result["maml"][0]["10-shot/1"]["mean"] += 0.01
    path.write_text(json.dumps(result))
    with pytest.raises(RunError, match=r"other numbers than the stored ones: tiny maml\. Look"):
        ask("tiny", "maml", check=True)
    assert capfd.readouterr().out.rstrip().endswith(" NO |")


@pytest.mark.slow
def test_a_budget_stops_a_row_and_the_same_command_goes_on(house, capfd, monkeypatch):
    longer = TINY._replace(flags="--steps 400000 --tasks 4 --test-tasks 20 --log-every 20")
    monkeypatch.setitem(TABLES, "tiny", longer)
    ask("tiny", budget=0.25)
    said = capfd.readouterr()
    assert "tiny maml is stopped before its end. The same command goes on" in said.out
    assert not (house / "results").exists()
    directory = house / "runs" / "reproduce" / "sinusoid" / "tiny.maml"
    if (directory / "checkpoints").exists():  # a slow machine has not begun within 15 s
        assert "saved at step" in said.err


def test_a_row_that_is_trained_again_is_not_reprinted(tmp_path):
    done, begun = tmp_path / "done", tmp_path / "begun"
    for folder in (done, begun, tmp_path / "done.1"):
        folder.mkdir()
    (done / "result.json").touch()
    reproduce.put_aside(done)
    reproduce.put_aside(begun)  # it goes on
    assert sorted(path.name for path in tmp_path.iterdir()) == ["begun", "done.1", "done.2"]
    assert (tmp_path / "done.2" / "result.json").exists()


def test_an_error_that_diverges_in_one_seed_diverges(monkeypatch):
    result = stored.results_of("sine-waves")["maml"]
    seeds = [{**seed} for seed in result["maml"]]
    seeds[0]["10-shot/1"] = {**seeds[0]["10-shot/1"], "mean": 250.0}
    monkeypatch.setattr(sines, "results_of", lambda table: {"maml": {**result, "maml": seeds}})
    assert next(itertools.islice(sines.sines("sine-waves"), 1, None))[4] == "diverges"


def test_wrong_names_are_refused_with_those_there_are():
    with pytest.raises(InputError, match=r"no table 'omni'. Choose one of numbers-5way-1shot "):
        ask("omni")
    with pytest.raises(InputError, match=r"no row 'mamml'. Choose one of maml "):
        ask("sine-waves", "mamml")
    with pytest.raises(InputError, match="too many names"):
        ask("sine-waves", "maml", "anil")
    with pytest.raises(InputError, match=r"--again trains one row anew\. Name a table and a row"):
        ask("sine-waves", again=True)


def test_a_run_that_fails_is_not_stored(house):
    wrong = TINY._replace(flags="--steps 40 --init-from nowhere")
    with pytest.raises(RunError, match=r"tiny maml ended with exit code 2\. See the message above"):
        reproduce.run_row("tiny", wrong, wrong.rows[0], None, None)


def test_the_list_has_every_row():
    shown = reproduce.listing()
    assert all(f"| {row.name} " in shown for _, row in ROWS)
    assert "missing" in shown
