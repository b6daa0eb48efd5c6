"""Runs in stages, stopped and gone on with, in small."""

import csv
import json
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError
from typer.testing import CliRunner

from superres.arrays import RgbU8
from superres.models.card import TrainingRecord
from tests.lazy import Lazy
from tests.runs import STAGES, as_toml, prepared, small_config, train, write_pictures
from training.cli import cli
from training.config import TrainingConfig, configs_folder, load_config, parents
from training.degrade import load_degradations

event_accumulator = Lazy("tensorboard.backend.event_processing.event_accumulator")
fit = Lazy("training.fit")
networks = Lazy("training.networks")
run_module = Lazy("training.run")
timing = Lazy("training.timing")
weights = Lazy("training.weights")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, coffee: RgbU8) -> Path:
    return write_pictures(tmp_path_factory.mktemp("root"), coffee)


@pytest.fixture(scope="module")
def pictures(root: Path, tmp_path_factory: pytest.TempPathFactory) -> object:
    return prepared(root, tmp_path_factory.mktemp("prepared") / "pictures")


@pytest.fixture(scope="module")
def finished(pictures: object, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run that is done, which tests read and never change, and what it showed."""
    run = tmp_path_factory.mktemp("runs") / "small"
    outcome, shown = train(small_config(), pictures, run)
    assert outcome.finished
    return run, shown


def record_of(run: Path) -> TrainingRecord:
    return TrainingRecord.model_validate_json((run / "record.json").read_text())


def state_of(run: Path, file: str = "state.npz") -> tuple[dict, dict[str, np.ndarray]]:
    """Facts of a checkpoint less its times, and its arrays."""
    with np.load(run / file) as state:
        facts = json.loads(str(state["facts"]))
        del facts["seconds"], facts["waited"], facts["sessions"]
        return facts, {name: state[name] for name in state.files if name != "facts"}


def assert_same(run: Path, other: Path) -> None:
    """That two runs are the same to the bit."""
    (facts, arrays), (other_facts, other_arrays) = state_of(run), state_of(other)
    assert facts == other_facts
    assert arrays.keys() == other_arrays.keys()
    assert all(np.array_equal(arrays[name], other_arrays[name]) for name in arrays)
    for file in ("steps.csv", "history.csv"):
        assert (run / file).read_bytes() == (other / file).read_bytes()
    assert record_of(run).weights_sha256 == record_of(other).weights_sha256


def test_a_run_keeps_checkpoints_weights_history_and_record(finished):
    run, shown = finished
    assert "small: 4,531 parameters, float32, 3 training pictures, 3 validation pictures" in shown
    assert "step      8  decay  loss" in shown
    _, arrays = state_of(run)
    assert {"variable:head/kernel", "variable:optimizer/iteration", "best:head/kernel"} <= set(
        arrays
    )
    assert arrays["variable:optimizer/iteration"] == 8
    assert state_of(run, "after-stable.npz")[1]["variable:optimizer/iteration"] == 4
    assert not list(run.glob(".*partial*"))
    with Image.open(run / "curves.png") as curves:
        assert curves.width > 400
    board = event_accumulator.EventAccumulator(
        str(run / "tensorboard"), size_guidance={"images": 0}
    ).Reload()
    assert [event.step for event in board.Scalars("degraded_psnr_y")] == [4, 6, 8]
    assert [image.step for image in board.Images("validation/0")] == [4, 6, 8]

    history = list(csv.DictReader((run / "history.csv").read_text().splitlines()))
    assert [(row["step"], row["stage"]) for row in history] == [
        ("4", "stable"),
        ("6", "decay"),
        ("8", "decay"),
    ]
    steps = list(csv.DictReader((run / "steps.csv").read_text().splitlines()))
    assert [(row["stage"], row["step"]) for row in steps] == [
        (stage, str(step)) for stage in ("stable", "decay") for step in (1, 2, 3, 4)
    ]
    mean = np.mean([float(row["loss"]) for row in steps[4:6]])
    assert float(history[1]["loss"]) == pytest.approx(mean)

    record = record_of(run)
    best = max(history, key=lambda row: float(row["clean_psnr_y"]))
    assert record.best_step == int(best["step"])
    assert record.validation["clean"].psnr_y == float(best["clean_psnr_y"])
    assert record.validation["degraded"].psnr_y == float(best["degraded_psnr_y"])
    assert record.steps == {"stable": 4, "decay": 4}
    assert record.finished
    (data,) = record.data
    assert data == record.validation_data
    assert (data.pictures, data.licences, data.sources) == (3, {"CC0": 3}, {"scikit-image": 3})
    (session,) = record.sessions
    assert {"python", "keras", "numpy", "pillow", "scipy"} < session.versions.keys()
    assert weights.hash_weights(weights.load_weights(run / "weights.npz")) == record.weights_sha256


@pytest.mark.slow
def test_a_run_that_is_interrupted_at_any_step_ends_as_one_that_never_was(
    root, pictures, finished, tmp_path, monkeypatch
):
    """By Ctrl-C between two checkpoints, by a deadline, and in the middle of a validation."""
    config, run = small_config(), tmp_path / "small"
    file = tmp_path / "small.toml"
    file.write_text(as_toml(config))
    real = fit._RunContext.note

    def press_ctrl_c(self, stage, step, loss):
        real(self, stage, step, loss)
        if (stage, step) == ("stable", 2):
            signal.raise_signal(signal.SIGINT)

    def fit_command(*more: str):
        arguments = ["fit", file, "--data-root", root, "--runs", tmp_path, "--workers", 0, *more]
        return CliRunner().invoke(cli, list(map(str, arguments)))

    # Of a process in the background, a shell has it ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with monkeypatch.context() as patch:
        patch.setattr(fit._RunContext, "note", press_ctrl_c)
        stopped = fit_command()
    signal.signal(signal.SIGINT, before)
    assert stopped.exit_code == 130, stopped.output
    assert "resume" in stopped.output
    assert state_of(run)[1]["variable:optimizer/iteration"] == 3

    assert fit_command("--resume", "--stop-after", "0.001s").exit_code == 0
    assert state_of(run)[1]["variable:optimizer/iteration"] == 3

    with monkeypatch.context() as patch:
        patch.setattr(
            fit._RunContext, "_show", lambda self, *_: setattr(self.stop, "signalled", True)
        )
        outcome, _ = train(config, pictures, run, go_on=True)
    assert not outcome.finished
    assert state_of(run)[1]["variable:optimizer/iteration"] == 4
    assert state_of(run)[0]["history"] == []

    done = fit_command("--resume")
    assert done.exit_code == 0, done.output
    assert "best validation" in " ".join(done.output.split())
    assert_same(run, finished[0])
    assert len(record_of(run).sessions) == 1


def copied(run: Path, folder: Path) -> Path:
    """A copy of a run's files, without its folders, that can go on."""
    folder.mkdir()
    for file in run.glob("*.*"):
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


@pytest.mark.slow
def test_a_constant_stage_is_extended_with_its_optimizers_state(pictures, finished, tmp_path):
    """And later stages begin anew: as though it always had these steps, whose batches, of the
    other run, another process makes.
    """
    longer = small_config(stages=[{"steps": 8}, {}])
    train(longer, pictures, tmp_path / "whole", workers=1)
    extended = copied(finished[0], tmp_path / "extended")
    outcome, _ = train(longer, pictures, extended, go_on=True)
    assert outcome.finished
    assert_same(extended, tmp_path / "whole")


@pytest.mark.slow
def test_a_changed_stage_begins_from_the_end_of_the_one_before(pictures, finished, tmp_path):
    changed = small_config(stages=[{}, {"steps": 6, "learning_rate": 1e-4}])
    train(changed, pictures, tmp_path / "whole")
    run = copied(finished[0], tmp_path / "changed")
    outcome, _ = train(changed, pictures, run, go_on=True)
    assert outcome.finished
    assert_same(run, tmp_path / "whole")


@pytest.mark.parametrize(
    ("stages", "done", "at", "goes_on_at"),
    [
        ([{"steps": 8}, {"learning_rate": 1e-4}], 4, (2, 0), (0, 4)),
        # Its patience ended the first stage: more steps would not change that.
        ([{"steps": 8}, {"learning_rate": 1e-4}], 3, (2, 0), (1, 0)),
        ([{}, {"learning_rate": 1e-4}], 4, (1, 2), (1, 0)),
        ([{}, {"learning_rate": 1e-4}], 4, (1, 0), (1, 0)),
        ([{"steps": 8}, {"learning_rate": 1e-4}], 4, (0, 2), (0, 2)),
        ([{}, {}, STAGES[1] | {"name": "more"}], 4, (1, 2), (1, 2)),
    ],
)
def test_a_run_goes_on_from_the_last_place_before_a_change(tmp_path, stages, done, at, goes_on_at):
    """The first stage ended after ``done`` steps, and the state is ``at`` a step of a stage."""
    old = run_module.Progress(small_config(), "float32")
    old.stage, old.step = 1, 0
    old.done = {"stable": done}
    old.save(tmp_path / "after-stable.npz")
    old.stage, old.step = at
    old.done = {"stable": done, "decay": 4} if at[0] == 2 else old.done if at[0] else {}
    old.save(tmp_path / "state.npz")
    found = run_module.resume(tmp_path, small_config(stages=stages))
    assert (found.stage, found.step) == goes_on_at
    assert found.done == ({"stable": done} if goes_on_at[0] else {})


def test_a_stage_can_be_appended(pictures, finished, tmp_path):
    run = copied(finished[0], tmp_path / "run")
    more = small_config(stages=[{}, {}, STAGES[1] | {"name": "more", "steps": 2}])
    train(more, pictures, run, go_on=True)
    record = record_of(run)
    assert record.steps == {"stable": 4, "decay": 4, "more": 2}
    assert (run / "steps.csv").read_text().startswith((finished[0] / "steps.csv").read_text())


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"ema_momentum": 0.9, "seed": 1}, "ema_momentum, seed changed"),
        ({"stages": [{"learning_rate": 1.0}, {}]}, "stages.stable.learning_rate changed"),
        ({"stages": [{"steps": 3}, {}]}, "stages.stable.steps changed"),
        ({"stages": [{}]}, r"stages \(some are gone\) changed"),
    ],
)
def test_what_else_changed_in_a_config_is_named(pictures, finished, changed, says):
    with pytest.raises(run_module.RunMismatch, match=says):
        train(small_config(**changed), pictures, finished[0], go_on=True)


def test_a_run_is_not_started_over_nor_resumed_where_there_is_none(pictures, finished, tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing to resume"):
        train(small_config(), pictures, tmp_path / "run", go_on=True)
    with pytest.raises(FileExistsError, match="already contains a run"):
        train(small_config(), pictures, finished[0])


def test_the_learning_rate_rises_stays_and_falls():
    stages = (
        small_config(stages=[{"steps": 10, "warmup_steps": 4}, {"steps": 5, "warmup_steps": 1}])
    ).stages
    schedule = Lazy("training.steps").StagedRate(stages)
    rates = [float(schedule(step)) for step in range(15)]
    assert rates[:4] == pytest.approx([0.25e-3, 0.5e-3, 0.75e-3, 1e-3])
    assert rates[4:10] == pytest.approx([1e-3] * 6)
    assert rates[10:12] == pytest.approx([1e-3, 1e-3])
    assert rates[12:] == pytest.approx([1e-3 - (1e-3 - 1e-6) * part for part in (0.25, 0.5, 0.75)])


def test_a_loss_that_is_not_a_number_stops_the_run_and_names_the_step(pictures, tmp_path):
    wild = small_config(stages=[{"learning_rate": 1e30, "warmup_steps": 0}, {}])
    with pytest.raises(
        fit.TrainingFailed, match=r"the loss is (nan|inf) at step \d of stage stable"
    ):
        train(wild, pictures, tmp_path / "run")


def test_validation_that_gets_no_better_ends_the_stage(pictures, tmp_path):
    frozen = {"learning_rate": 1e-30, "steps_per_validation": 1, "patience": 2, "steps": 400}
    train(small_config(stages=[frozen]), pictures, tmp_path / "run")
    assert record_of(tmp_path / "run").steps == {"stable": 3}


def test_pictures_that_are_too_few_or_too_small_are_told(pictures, tmp_path):
    whole = {"whole_pictures": True, "patch_size": None, "batch_size": 4}
    with pytest.raises(fit.TrainingFailed, match="there are 3 pictures; a batch has 4"):
        train(small_config(stages=[whole]), pictures, tmp_path / "whole")
    failed = Lazy("training.sampler").SamplerFailed
    with pytest.raises(failed, match="no picture is large enough for a patch of 90 px"):
        train(small_config(stages=[{"patch_size": 90}]), pictures, tmp_path / "large")


def test_a_set_or_a_start_that_is_not_the_configs_is_refused(pictures, tmp_path):
    others = small_config(data=[{"name": "others", "shrinks": [1.0]}])
    with pytest.raises(fit.TrainingFailed, match="is a set of name pictures, not others"):
        train(others, pictures, tmp_path / "run")
    with pytest.raises(fit.TrainingFailed, match="small starts from srcnn-x3"):
        train(small_config(start_from="srcnn-x3"), pictures, tmp_path / "run")


def test_the_faster_precision_is_found_by_trial_once_and_kept(pictures, tmp_path, monkeypatch):
    run = tmp_path / "run"
    auto = small_config(precision="auto", stages=[{"steps": 2}])
    times = {"float32": 1.0, "bfloat16": 0.96}
    monkeypatch.setattr(
        "training.timing.seconds_per_step",
        lambda config, stage, precision, batch_size: times[precision],
    )
    assert timing.faster_precision(auto) == "float32"  # no clear gain
    times["bfloat16"] = 0.9
    train(auto, pictures, run)
    assert record_of(run).precision == "bfloat16"
    times["bfloat16"] = 2.0
    _, shown = train(auto, pictures, run, go_on=True)
    assert "bfloat16" in shown


@pytest.mark.slow
def test_another_machine_goes_on_in_another_precision(pictures, tmp_path):
    config, run = small_config(precision="auto"), tmp_path / "run"
    train(config, pictures, run, precision="bfloat16", deadline=0)  # stopped before its first step
    train(config, pictures, run, precision="float32", go_on=True)
    record = record_of(run)
    assert record.precision == "float32"
    assert [one.precision for one in record.sessions] == ["bfloat16", "float32"]


def test_a_precision_that_is_not_the_configs_is_refused(pictures, tmp_path):
    with pytest.raises(ValueError, match="the config has precision float32: it cannot be bfloat16"):
        train(small_config(), pictures, tmp_path / "run", precision="bfloat16")


def test_a_step_is_timed():
    config = small_config()
    began = time.perf_counter()
    seconds = timing.seconds_per_step(config, config.stages[1], "float32")
    assert 0 < seconds < time.perf_counter() - began


def test_an_unknown_key_and_an_unknown_config_are_errors(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"no config 'srcnn-x9'.*srcnn-x3"):
        load_config("srcnn-x9")
    file = tmp_path / "mine.toml"
    file.write_text((configs_folder() / "srcnn-x3.toml").read_text())
    assert load_config(str(file)) == load_config("srcnn-x3")
    file.write_text("momentum = 0.9\n" + file.read_text())
    with pytest.raises(ValidationError, match="momentum"):
        load_config(str(file))


@pytest.mark.parametrize(
    "file", sorted(configs_folder().glob("*.toml")), ids=lambda file: file.stem
)
def test_a_committed_config_names_its_pictures_and_a_committed_start(file: Path):
    config = load_config(file.stem)
    assert all(one.manifest_sha256 for one in config.all_pictures)
    assert config.validation.where != config.data[-1].where
    for parent in parents(config):
        assert networks.added_blocks(config.network, parent.network) is not None
        assert (config.skip, config.centred) == (parent.skip, parent.centred)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_photo_configs_degrade_as_the_sheet_shows(scale: int):
    assert load_config(f"edsr-lite-photo-x{scale}").degradations == load_degradations(
        configs_folder().parent / "degradations.toml"
    )


def test_only_weights_of_the_same_design_are_taken():
    def design(**changes):
        ours = {"network": "edsr_2x8", "scale": 3, "skip": True, "centred": True} | changes
        return weights.Design(**ours)

    theirs = weights.weights_of(design().build(precision="float32"))
    x2 = design(scale=2).build(precision="float32")
    fresh = x2.get_layer("subpixels").get_weights()
    layers = weights.take_weights(x2, design(scale=2), theirs, design())
    assert layers == ("head", "block1_1", "block1_2", "block2_1", "block2_2")
    assert np.array_equal(x2.get_layer("head").get_weights()[0], theirs["head/kernel"])
    assert np.array_equal(x2.get_layer("subpixels").get_weights()[0], fresh[0])
    with pytest.raises(weights.WeightsMismatch, match="of network edsr_5x32, which is neither"):
        weights.take_weights(x2, design(scale=2), theirs, design(network="edsr_5x32"))
    for changes in ({"skip": False}, {"centred": False}):
        (name,) = changes
        with pytest.raises(weights.WeightsMismatch, match=f"are of {name} "):
            weights.take_weights(x2, design(scale=2), theirs, design(**changes))
    with pytest.raises(weights.WeightsMismatch, match=r"another network: .*subpixels"):
        weights.set_weights(x2, theirs)


def test_a_deeper_network_begins_with_the_outputs_of_the_shallower_one():
    def design(network: str) -> weights.Design:
        return weights.Design(network=network, scale=3, skip=True, centred=True)

    shallow = design("edsr_12x32").build(precision="float32")
    deep = design("edsr_16x32").build(precision="float32")
    theirs = weights.weights_of(shallow)
    layers = weights.take_weights(deep, design("edsr_16x32"), theirs, design("edsr_12x32"))
    assert layers == tuple(layer.name for layer in shallow.layers if layer.weights)
    picture = np.random.default_rng(0).random((1, 24, 24, 3), np.float32)
    assert np.allclose(deep(picture), shallow(picture), atol=1e-6)
    assert np.any(deep.get_layer("block13_1").get_weights()[0])  # else it could never learn
    with pytest.raises(weights.WeightsMismatch, match="of network edsr_16x32, which is neither"):
        weights.take_weights(
            shallow, design("edsr_12x32"), weights.weights_of(deep), design("edsr_16x32")
        )


@pytest.mark.slow
def test_the_upstream_recipe_runs_whole_pictures_zero_borders_and_chooses_by_loss(
    tmp_path, coffee: RgbU8
):
    """Without its VGG19 term, whose weights are not part of this project."""
    upstream = load_config("upstream-no-vgg19")
    pictures = prepared(write_pictures(tmp_path, coffee, side=64), tmp_path / "prepared")
    short = TrainingConfig.model_validate(
        upstream.model_dump(mode="json")
        | {
            "precision": "float32",
            "validation": {"name": "pictures", "choose_by": "loss"},
            "data": [{"name": "pictures", "shrinks": [1.0]}],
            "stages": [
                upstream.stages[0].model_dump(mode="json") | {"steps": 4, "steps_per_validation": 2}
            ],
        }
    )
    train(short, pictures, tmp_path / "run")
    with (tmp_path / "run" / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    best = min(rows, key=lambda row: float(row["validation_loss"]))
    record = record_of(tmp_path / "run")
    assert record.best_step == int(best["step"])
    assert list(record.validation) == ["clean"]
