"""Models from configs alone: data, start, run, export and card; and what export refuses."""

import hashlib
import json
import os
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from superres import load_model
from superres.arrays import RgbU8, to_float
from superres.errors import ModelMismatch
from superres.models.card import ModelCard, StartRecord, TrainingRecord, read_card
from superres.models.registry import DEFAULT_MODELS, read_cards
from tests.lazy import Lazy
from tests.runs import as_toml, prepared, small_config, train, write_pictures
from training.cli import cli
from training.config import load_config, model_name, parents
from training.evaluate import evaluate

export = Lazy("training.export")
keras = Lazy("keras")
provenance = Lazy("training.provenance")
reproduce = Lazy("training.reproduce")
weights = Lazy("training.weights")

CLEAN = ("0" * 40, False)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, coffee: RgbU8) -> Path:
    return write_pictures(tmp_path_factory.mktemp("root"), coffee)


@pytest.fixture
def configs(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of committed configs: small-x3, small-x2 that starts from it, and post-upsampling.

    With a clean tree, whatever the one that is tested.
    """
    manifest = "manifest_sha256"
    sha256 = hashlib.sha256((root / "pictures" / "manifest.csv").read_bytes()).hexdigest()
    common: dict[str, Any] = {
        "stages": [{"steps": 2}],
        "data": [{"name": "pictures", manifest: sha256, "shrinks": [1.0]}],
        "validation": {"name": "pictures", manifest: sha256, "choose_by": "clean"},
    }
    folder = tmp_path / "configs"
    folder.mkdir()
    for name, changes in {
        "small-x3": {},
        "small-x2": {"scale": 2, "start_from": "small-x3"},
        "small-continued-x3": {"start_from": "small-x3"},
        "post-x3": {"family": "post", "network": "srcnn_935"},
    }.items():
        (folder / f"{name}.toml").write_text(as_toml(small_config(name=name, **common | changes)))
    # Export first: it imports the others, and must not take what is replaced for what was there.
    for module in ("training.export", "training.config"):
        monkeypatch.setattr(f"{module}.configs_folder", lambda: folder)
    for module in ("training.export", "training.provenance"):
        monkeypatch.setattr(f"{module}.commit_and_dirty", lambda: CLEAN)
    return folder


def command(*arguments: object) -> str:
    result = CliRunner().invoke(cli, list(map(str, arguments)), env={"COLUMNS": "150"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.slow
def test_a_model_is_reproduced_with_what_it_starts_from_and_served_as_it_was_validated(
    configs, root, tmp_path
):
    runs, benchmarks = tmp_path / "runs", tmp_path / "benchmarks"
    shutil.copytree(root / "pictures", benchmarks / "Three" / "x2")
    arguments = ["reproduce", "small-x2", "--data-root", root, "--runs", runs, "--workers", 0]
    said = command(*arguments, "--benchmarks", benchmarks)
    assert "small-x3: about 1 minutes left on this machine" in said
    assert "small-x2: about 1 minutes left on this machine" in said
    card = read_card(runs / "models" / "small-x2")
    record = card.training
    assert record is not None
    assert record.started_from is not None
    assert record.started_from.config_sha256 == load_config("small-x3").sha256
    assert record.started_from.layers == ("head", "block1_1", "block1_2", "block2_1", "block2_2")
    parent = TrainingRecord.model_validate_json((runs / "small-x3" / "record.json").read_text())
    assert record.started_from.weights_sha256 == parent.weights_sha256
    assert (card.reproducible, card.reason, card.draft) == (True, "", False)
    assert card.weights_sha256 == record.weights_sha256
    assert [one.dataset for one in card.scores] == ["Three", "Three-jpeg75"]
    geometry = card.geometry
    assert (geometry.domain, geometry.upscale, geometry.halo) == ("lr", 2, 6)

    enhancer = load_model("small-x2", models=runs / "models", precision="float32", device="cpu")
    scores = evaluate(enhancer, root / "pictures", 2).summarise()
    assert scores.model.psnr_y == pytest.approx(record.validation["clean"].psnr_y, abs=0.01)
    assert scores.bicubic.psnr_y == pytest.approx(record.validation_bicubic["clean"].psnr_y)

    # The same command again has nothing to train; an export of the model keeps its scores.
    before = (runs / "small-x2" / "state.npz").read_bytes()
    assert "minutes" not in command(*arguments, "--benchmarks", benchmarks)
    assert (runs / "small-x2" / "state.npz").read_bytes() == before
    command("export", runs / "models" / "small-x2", "--models", tmp_path / "again")
    card, again = (
        read_card(folder / "small-x2") for folder in (runs / "models", tmp_path / "again")
    )
    assert (again.training, again.scores) == (card.training, card.scores)

    # What a run starts from may be an exported model.
    export.export(runs / "small-x3", runs / "models")
    start = reproduce.find_start(load_config("small-x2"), tmp_path / "none", runs / "models")
    assert start is not None
    assert weights.hash_weights(start.weights) == parent.weights_sha256


@pytest.mark.slow
def test_a_network_on_the_bicubic_plane_is_exported_as_it_was_trained(configs, root, tmp_path):
    command(
        "reproduce", "post-x3", "--data-root", root, "--runs", tmp_path / "runs", "--workers", 0
    )
    models = tmp_path / "runs" / "models"
    card = read_card(models / "post-x3")
    geometry = card.geometry
    assert (card.parameters, geometry.domain, geometry.upscale, geometry.halo) == (
        36_483,
        "hr",
        1,
        7,
    )
    enhancer = load_model("post-x3", models=models, precision="float32", device="cpu")
    scores = evaluate(enhancer, root / "pictures", 3).summarise()
    assert card.training is not None
    assert scores.model.psnr_y == pytest.approx(card.training.validation["clean"].psnr_y, abs=0.01)


@pytest.fixture
def small_run(configs, root, tmp_path) -> Path:
    """A finished run of small-x3."""
    pictures = prepared(root, tmp_path / "prepared")
    train(load_config("small-x3"), pictures, tmp_path / "small-x3")
    return tmp_path / "small-x3"


@pytest.mark.slow
def test_a_model_may_be_made_by_several_configs_in_turn(configs, root, small_run, tmp_path):
    models, pictures = tmp_path / "models", prepared(root, tmp_path / "prepared")
    export.export(small_run, models)
    continued = load_config("small-continued-x3")
    start = reproduce.find_start(continued, tmp_path / "none", models)
    train(continued, pictures, tmp_path / continued.name, start=start)
    card = export.export(tmp_path / continued.name, models)
    assert card.name == "small-x3"
    assert card.training is not None
    assert card.training.config["name"] == "small-continued-x3"
    # The model is no longer what the first config made.
    with pytest.raises(Lazy("training.fit").TrainingFailed, match="make it first"):
        reproduce.find_start(load_config("small-x2"), tmp_path / "none", models)
    # A run that has begun goes on without it.
    more = continued.stages[0].model_copy(update={"name": "more"})
    longer = continued.model_copy(update={"stages": (*continued.stages, more)})
    assert reproduce.find_start(longer, tmp_path, models) is None
    train(longer, pictures, tmp_path / continued.name, go_on=True)


def test_export_refuses_what_no_command_can_make_again(configs, small_run, tmp_path, monkeypatch):
    record = json.loads((small_run / "record.json").read_text())
    models = tmp_path / "models"

    def refuse(says: str, **changes: object) -> None:
        (small_run / "record.json").write_text(json.dumps(record | changes))
        with pytest.raises((export.ExportFailed, weights.WeightsMismatch), match=says):
            export.export(small_run, models)

    refuse("the run of small-x3 is not finished", finished=False)
    refuse("not the committed one", config=record["config"] | {"seed": 7})
    refuse("unknown is not a committed config", config=record["config"] | {"name": "unknown"})
    (session,) = record["sessions"]
    for dirty in (True, None):
        refuse("code that differs from its commit", sessions=[session, session | {"dirty": dirty}])
    start = {"config": "gone", "config_sha256": "0", "weights_sha256": "0", "layers": []}
    refuse("small-x3 starts from None", started_from=start)
    refuse("is not the log of small-x3", steps_sha256="0" * 64)
    refuse("does not match the hash in the record beside it", weights_sha256="0" * 64)
    data = [record["data"][0] | {"manifest_sha256": "0" * 64}]
    refuse("the pictures of pictures are not those", data=data)

    (small_run / "record.json").write_text(json.dumps(record))
    for dirty in (True, None):
        monkeypatch.setattr(
            "training.export.commit_and_dirty", lambda dirty=dirty: ("1" * 40, dirty)
        )
        with pytest.raises(export.ExportFailed, match="differs from its commit 111111111111"):
            export.export(small_run, models)
    assert not models.exists()
    draft = export.export(small_run, models, draft=True)
    assert (draft.draft, draft.reproducible) == (True, False)


def test_a_start_that_is_not_committed_or_was_changed_is_refused(configs, small_run):
    record = TrainingRecord.model_validate_json((small_run / "record.json").read_text())
    config = load_config("small-x2")
    child = record.model_copy(
        update={"config": config.model_dump(mode="json"), "config_sha256": config.sha256}
    )

    def check(config_sha256: str) -> None:
        start = StartRecord(
            config="small-x3", config_sha256=config_sha256, weights_sha256="0", layers=()
        )
        export.check_record(child.model_copy(update={"started_from": start}))

    check(load_config("small-x3").sha256)
    with pytest.raises(export.ExportFailed, match="another small-x3 than the committed one"):
        check("0" * 64)
    (configs / "small-x3.toml").unlink()
    with pytest.raises(export.ExportFailed, match="starts from small-x3, which is not committed"):
        check("0" * 64)


@pytest.mark.parametrize("card", read_cards(DEFAULT_MODELS), ids=lambda card: card.name)
def test_a_shipped_model_can_be_made_again(card: ModelCard):
    assert (card.reproducible, card.reason, card.draft) == (True, "", False)
    assert card.training is not None
    export.check_record(card.training)
    assert card.weights_sha256 == card.training.weights_sha256
    config = load_config(card.training.config["name"])
    facts = (model_name(config.family, config.scale), config.family, config.network, config.scale)
    assert (card.name, card.family, card.network, card.geometry.scale) == facts


@pytest.mark.parametrize("card", read_cards(DEFAULT_MODELS), ids=lambda card: card.name)
def test_a_shipped_model_brings_the_weights_that_it_was_made_of(card: ModelCard):
    network = weights.trained_network(DEFAULT_MODELS / card.name)
    upscale = card.geometry.upscale
    answers = np.asarray(network(to_float(card.example.tiles()))).clip(0, 1)
    answers = card.example.without_margin(answers, upscale)
    expected = card.example.answers(upscale)
    np.testing.assert_allclose(answers, expected, atol=1e-5)


def test_a_card_with_an_edited_field_is_refused(tmp_path: Path):
    folder = tmp_path / "srcnn-x3"
    shutil.copytree(DEFAULT_MODELS / "srcnn-x3", folder)
    text = (folder / "card.json").read_text()
    (folder / "card.json").write_text(text.replace('"reproducible": true', '"reproducible": false'))
    with pytest.raises(ModelMismatch, match="was edited"):
        read_card(folder)


def test_code_that_differs_from_the_commit_is_noticed_and_models_may_differ(tmp_path: Path):
    def git(*arguments: str) -> None:
        identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True)

    assert provenance.commit_and_dirty(tmp_path) == ("unknown", None)
    for folder in ("training", "models"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "one").write_text("1")
    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "-m", "one")
    commit, dirty = provenance.commit_and_dirty(tmp_path)
    assert (len(commit), dirty) == (40, False)
    (tmp_path / "models" / "one").write_text("2")
    assert provenance.commit_and_dirty(tmp_path)[1] is False
    (tmp_path / "training" / "two").write_text("2")
    assert provenance.commit_and_dirty(tmp_path)[1] is True


def test_data_that_are_not_those_of_the_config_and_a_start_that_is_missing_are_told(
    configs, root, tmp_path
):
    with pytest.raises(Lazy("training.fit").TrainingFailed, match=r"no .*manifest\.csv"):
        reproduce.prepare_sets(load_config("small-x3"), tmp_path, tmp_path)
    other = tmp_path / "root"
    shutil.copytree(root, other)
    with (other / "pictures" / "manifest.csv").open("a") as file:
        file.write("\n")
    with pytest.raises(
        Lazy("training.fit").TrainingFailed, match="these are not the pictures of the config"
    ):
        reproduce.prepare_sets(load_config("small-x3"), other, tmp_path)
    with pytest.raises(
        Lazy("training.fit").TrainingFailed, match=r"no finished run .* make it first"
    ):
        reproduce.find_start(load_config("small-x2"), tmp_path, DEFAULT_MODELS)


def test_starts_that_go_round_in_a_circle_are_refused(configs):
    (configs / "small-x3.toml").write_text(
        as_toml(small_config(name="small-x3", start_from="small-x2"))
    )
    with pytest.raises(ValueError, match="starts from itself"):
        parents(load_config("small-x2"))


@pytest.mark.parametrize("can_exchange", [True, False])
def test_a_folder_that_is_replaced_is_there_at_every_moment(
    tmp_path: Path, monkeypatch, can_exchange: bool
):
    """Where two folders can change places in one step; elsewhere it comes back after a failure."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "card.json").write_text("0")
    if not can_exchange:
        monkeypatch.setattr("training.export._exchange", lambda one, other: False)
        with pytest.raises(FileNotFoundError):
            export.put_in_place(tmp_path / "none", folder)
        assert (folder / "card.json").read_text() == "0"

    missing, done = [], threading.Event()

    def watch() -> None:
        while not done.is_set():
            if not (folder / "card.json").exists():
                missing.append(True)

    watcher = threading.Thread(target=watch)
    watcher.start()
    for number in range(1, 101):
        made = tmp_path / f"new-{number}" / "model"
        made.mkdir(parents=True)
        (made / "card.json").write_text(str(number))
        export.put_in_place(made, folder)
    done.set()
    watcher.join()
    assert (folder / "card.json").read_text() == "100"
    if can_exchange and os.uname().sysname == "Linux":
        assert not missing


def test_export_needs_tensorflow(monkeypatch, tmp_path: Path):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(RuntimeError, match="KERAS_BACKEND is jax"):
        export.export(tmp_path, tmp_path)
