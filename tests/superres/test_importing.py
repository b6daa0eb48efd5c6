"""Networks from elsewhere become models that are tiled exactly, or are refused."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from superres import Enhancer, load_model
from superres.codecs import Header, probe
from superres.errors import BadRequest, ImageTooLarge
from superres.forecast import forecast
from superres.models.card import Tiling, read_card
from superres.models.registry import read_cards
from tests.commands import superres
from tests.lazy import Lazy
from tests.needs import package
from tests.pictures import encoded

importing = Lazy("superres.importing.model")
cli = Lazy("superres.importing.cli")
ASKED = {"family": "foreign", "licence": "CC0-1.0", "source": "https://example.org/network"}


@pytest.fixture(autouse=True)
def packages() -> None:
    package("onnx")
    package("onnxruntime")


class Foreign:
    """A network that is built node by node; ``x`` is the name of the last value."""

    def __init__(self, *, layout="nchw", channels=3, dtype="float32", opset=18) -> None:
        self.layout, self.channels, self.dtype, self.opset = layout, channels, dtype, opset
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.x = "input"
        self.random = np.random.default_rng(3)
        if layout == "nhwc":
            self.add("Transpose", perm=(0, 3, 1, 2))

    def add(self, operator: str, *more: str, **attributes: Any) -> str:
        from onnx import helper

        name = f"value{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, [self.x, *more], [name], **attributes))
        self.x = name
        return name

    def constant(self, value: Any, dtype: str = "") -> str:
        from onnx import numpy_helper

        name = f"constant{len(self.constants)}"
        array = np.asarray(value, dtype or self.dtype)
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def convolution(self, before: int, after: int, size: int) -> None:
        """Close to the identity, with something of every neighbour."""
        kernel = self.random.normal(0, 0.004, (after, before, size, size))
        for one in range(after):
            kernel[one, one * before // after, size // 2, size // 2] += 1
        reach = size // 2
        self.add("Conv", self.constant(kernel), pads=(reach,) * 4, kernel_shape=(size, size))

    def save(self, file: Path) -> Path:
        import onnx
        from onnx import TensorProto, helper

        if self.layout == "nhwc":
            self.add("Transpose", perm=(0, 2, 3, 1))
        kind = TensorProto.FLOAT16 if self.dtype == "float16" else TensorProto.FLOAT
        sides = {"nchw": (1, self.channels, "h", "w"), "nhwc": (1, "h", "w", self.channels)}
        shape = sides[self.layout]
        out = ["n", "c", "H", "W"] if self.layout == "nchw" else ["n", "H", "W", "c"]
        graph = helper.make_graph(
            self.nodes,
            "foreign",
            [helper.make_tensor_value_info("input", kind, shape)],
            [helper.make_tensor_value_info(self.x, kind, out)],
            self.constants,
        )
        opsets = [helper.make_opsetid("", self.opset)]
        onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), file)
        return file


def espcn(file: Path, *, white: int = 1, **form: Any) -> Path:
    """Convolutions of 5 and 3, then enlargement by 2: answers depend on pixels 3 px away."""
    made = Foreign(**form)
    made.add("Clip", made.constant(0.004 * white), made.constant(0.996 * white))
    made.convolution(made.channels, 8 * made.channels, 5)
    made.add("Relu")
    made.convolution(8 * made.channels, 4 * made.channels, 3)
    made.add("DepthToSpace", blocksize=2, mode="CRD")
    return made.save(file)


def unet(file: Path) -> Path:
    """Halved twice, a convolution, enlarged again and added: on a grid of 4 px, scale 1."""
    made = Foreign()
    whole = made.x
    for _ in range(2):
        made.add("AveragePool", kernel_shape=(2, 2), strides=(2, 2))
    made.convolution(3, 3, 3)
    scales = made.constant((1, 1, 4, 4), "float32")
    places = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    made.add("Resize", "", scales, mode="nearest", **places)
    made.add("Sub", whole)
    made.add("Mul", made.constant(0.1))
    made.add("Add", whole)
    return made.save(file)


def pooled(file: Path, weight: float = 1.0, multiple: int = 1) -> Path:
    """Each answer depends on the mean of the whole picture, whose sides are multiples."""
    made = Foreign()
    whole = made.x
    made.add("GlobalAveragePool")
    made.add("Sub", whole)
    made.add("Mul", made.constant(weight / 2))
    made.add("Add", whole)
    made.add("SpaceToDepth", blocksize=multiple)
    made.add("DepthToSpace", blocksize=multiple)
    return made.save(file)


FORMS = [
    {},
    {"layout": "nhwc"},
    {"white": 255},
    {"channels": 1},
    {"dtype": "float16"},
    {"layout": "nhwc", "white": 255, "channels": 1, "opset": 13},
]


def slow(form: dict[str, Any]) -> Any:
    return pytest.param(form, marks=pytest.mark.slow, id=" ".join(map(str, form.values())))


@pytest.mark.parametrize("form", [*map(slow, FORMS[:-1]), pytest.param(FORMS[-1], id="all")])
def test_an_espcn_of_any_form_is_imported_and_tiled_exactly(form, tmp_path: Path, chelsea):
    file = espcn(tmp_path / "network.onnx", **form)
    card = importing.import_model(file, tmp_path / "models", name="espcn", **ASKED)
    assert (card.geometry.scale, card.geometry.halo, card.geometry.upscale) == (2, 3, 2)
    found = card.legacy["form"]
    assert found["layout"] == form.get("layout", "nchw")
    assert found["largest"] == form.get("white", 1)
    assert found["channels"] == form.get("channels", 3)
    assert found["dtype"] == form.get("dtype", "float32")
    assert (card.legacy["licence"], card.legacy["source"]) == ("CC0-1.0", ASKED["source"])
    assert tiled_as_whole(tmp_path / "models", chelsea)
    enhancer = load_model("foreign", models=tmp_path / "models", device="cpu")
    made = enhancer.enhance_rgb(chelsea[:60, :80], (120, 160))
    near = chelsea[:60, :80].repeat(2, axis=0).repeat(2, axis=1)
    assert np.abs(made.astype(int) - near).mean() < 30


def tiled_as_whole(models: Path, picture: np.ndarray) -> bool:
    (card,) = read_cards(models)
    engine = load_model(card.name, models=models, device="cpu").engine
    small = card.geometry.model_copy(update={"largest_tile": 96})
    size = tuple(side * card.geometry.scale for side in picture.shape[:2])
    whole, tiled = (
        Enhancer(engine, geometry).enhance_rgb(picture, size) for geometry in (card.geometry, small)
    )
    return np.array_equal(whole, tiled)


@pytest.mark.slow
def test_a_unet_is_tiled_on_its_grid(tmp_path: Path, chelsea):
    file = unet(tmp_path / "network.onnx")
    card = importing.import_model(file, tmp_path / "models", name="unet", **ASKED)
    assert card.geometry.scale == 1
    assert card.legacy["tiling"] == {"mode": "exact", "multiple": 4}
    assert card.geometry.halo == 4
    assert tiled_as_whole(tmp_path / "models", chelsea)


@pytest.mark.slow
def test_a_network_that_does_not_enlarge_is_one_for_auto(tmp_path: Path, chelsea):
    models, photo = tmp_path / "models", tmp_path / "photo.png"
    importing.import_model(unet(tmp_path / "network.onnx"), models, name="unet", **ASKED)
    photo.write_bytes(encoded(chelsea[:60, :80]))
    for scale in (1, 1.5, 3):
        made = tmp_path / f"{scale}.png"
        run = superres(
            "enhance", photo, "-o", made, "--model", "auto", "--scale", scale,
            SUPERRES_MODELS=str(models),
        )  # fmt: skip
        assert run.returncode == 0, run.stderr
        assert "unet, chosen for a picture" in run.stderr
        assert probe(made).size == (60 * scale, 80 * scale)


@pytest.mark.slow
def test_colours_in_the_other_order_come_back_in_theirs(tmp_path: Path, chelsea):
    file = espcn(tmp_path / "network.onnx")
    for name, colours in (("rgb", "rgb"), ("bgr", "bgr")):
        asked = ASKED | {"family": name, "name": name, "colours": colours}
        importing.import_model(file, tmp_path / "models", **asked)
    picture = np.ascontiguousarray(chelsea[:64, :64])
    one, other = (
        load_model(name, models=tmp_path / "models", device="cpu").engine for name in ("rgb", "bgr")
    )
    turned = other.predict(np.ascontiguousarray(picture[None, ..., ::-1]))
    assert np.array_equal(one.predict(picture[None]), turned[..., ::-1])


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (pooled, r"depends? on .* --mode whole serves it on pictures of up to 262,144"),
        (lambda file: file.write_bytes(b"no network") and file, "is not an ONNX network"),
        (lambda file: Foreign(channels=4).save(file), r"the network takes \[1, 4, 0, 0\]"),
    ],
)
def test_what_cannot_be_served_exactly_is_refused_with_the_reason(build, reason, tmp_path: Path):
    with pytest.raises(BadRequest, match=reason):
        importing.import_model(build(tmp_path / "n.onnx"), tmp_path / "models", name="n", **ASKED)
    assert not list(tmp_path.glob("models/*"))


@pytest.mark.slow
@pytest.mark.parametrize("multiple", [1, 4])
def test_a_network_of_the_whole_picture_is_served_whole_if_that_is_asked_for(
    multiple: int, tmp_path: Path, chelsea
):
    file = pooled(tmp_path / "network.onnx", multiple=multiple)
    card = importing.import_model(file, tmp_path / "m", name="pooled", mode="whole", **ASKED)
    assert card.geometry.tiling == Tiling(mode="whole", multiple=multiple)
    assert card.legacy["tiling"] == {"mode": "whole", "multiple": multiple}
    enhancer = load_model("pooled", models=tmp_path / "m", device="cpu")
    for picture in (chelsea[:200, :320], chelsea[:33, :50]):
        extended = np.pad(
            picture, [(0, -side % multiple) for side in picture.shape[:2]] + [(0, 0)], "edge"
        )
        made = enhancer.enhance_rgb(picture, picture.shape[:2]).astype(float)
        assert np.abs(made - (picture + extended.mean((0, 1))) / 2).max() < 0.51
        assert forecast(Header("png", picture.shape[:2], 8), 0, 1, card.geometry).tiles == 1
    # What counts is the tile: a picture of one column is extended to four.
    tall = 262_144 // multiple + multiple
    large = np.zeros((tall, 1, 3), np.uint8)
    reason = rf"whole pictures, of at most 262,144 pixels; this one has .* \({multiple}x{tall}\)"
    with pytest.raises(ImageTooLarge, match=reason):
        enhancer.enhance_rgb(large, large.shape[:2])
    with pytest.raises(ImageTooLarge, match=reason):
        forecast(Header("png", (tall, 1), 8), 0, 1, card.geometry)


@pytest.mark.slow
def test_overlap_takes_a_network_whose_far_influence_is_small_and_states_the_error(
    tmp_path: Path, chelsea
):
    file = pooled(tmp_path / "strong.onnx")
    with pytest.raises(BadRequest, match=r"tiled, because|160 px away change the answers by"):
        importing.import_model(file, tmp_path / "m", name="n", mode="overlap", **ASKED)
    file = pooled(tmp_path / "weak.onnx", weight=0.01)
    card = importing.import_model(file, tmp_path / "m", name="n", mode="overlap", **ASKED)
    tiling = card.geometry.tiling
    assert tiling.mode == "overlap"
    assert 0.3 < tiling.error_levels <= 1
    engine = load_model("n", models=tmp_path / "m", device="cpu").engine
    small = card.geometry.model_copy(update={"largest_tile": 96})
    halves = np.repeat([[0] * 150 + [255] * 150], 200, axis=0).astype(np.uint8)
    for picture in (chelsea, np.ascontiguousarray(np.dstack([halves] * 3))):
        whole, tiled = (
            Enhancer(engine, geometry).enhance_rgb(picture, picture.shape[:2]).astype(int)
            for geometry in (card.geometry, small)
        )
        assert np.abs(whole - tiled).max() <= 1


def test_a_name_that_is_taken_and_another_scale_are_refused(tmp_path: Path):
    file = espcn(tmp_path / "network.onnx")
    with pytest.raises(BadRequest, match="enlarges by 2, not by 3"):
        importing.import_model(file, tmp_path, name="espcn", scale=3, **ASKED)
    (tmp_path / "espcn").mkdir()
    with pytest.raises(BadRequest, match="take another name"):
        importing.import_model(file, tmp_path, name="espcn", **ASKED)


def test_a_pytorch_file_without_pytorch_is_refused_with_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "spandrel", None)
    with pytest.raises(
        BadRequest, match=r"n\.pth needs more packages .* pip install spandrel torch"
    ):
        importing.import_model(tmp_path / "n.pth", tmp_path, name="n", **ASKED)


@pytest.mark.soak  # no lock has spandrel and PyTorch
def test_a_pytorch_file_that_spandrel_knows_is_imported(tmp_path: Path, chelsea):
    package("spandrel")
    import torch
    from spandrel.architectures.Compact.__arch.SRVGG import SRVGGNetCompact

    torch.manual_seed(0)
    network = SRVGGNetCompact(num_feat=8, num_conv=2, upscale=2)
    torch.save({"params": network.state_dict()}, tmp_path / "compact.pth")
    models = tmp_path / "models"
    card = importing.import_model(tmp_path / "compact.pth", models, name="compact", **ASKED)
    assert (card.geometry.scale, card.geometry.halo) == (2, 4)
    assert card.legacy["file"] == "compact.pth"
    assert tiled_as_whole(models, chelsea)
    engine = load_model("compact", models=models, device="cpu").engine
    samples = chelsea[None, :64, :80] / np.float32(255)
    with torch.no_grad():
        expected = network(torch.from_numpy(samples.transpose(0, 3, 1, 2))).numpy()
    assert np.abs(engine.predict(samples) - expected.transpose(0, 2, 3, 1).clip(0, 1)).max() < 1e-5
    (tmp_path / "other.pth").write_bytes(b"nothing")
    with pytest.raises(BadRequest, match=r"other\.pth cannot be converted to ONNX"):
        importing.import_model(tmp_path / "other.pth", models, name="other", **ASKED)


@pytest.mark.slow
def test_the_command_scores_the_network_on_given_pictures(tmp_path: Path):
    from typer.testing import CliRunner

    photograph = Path(__file__).parents[2] / "app" / "web" / "photographs" / "rocket.jpg"
    file = espcn(tmp_path / "network.onnx")
    arguments = ["import", file, "--name", "espcn-x2", "--licence", "CC0-1.0", "--source", "me"]
    arguments += ["--models", tmp_path / "models", "--picture", photograph]
    run = CliRunner().invoke(cli.cli, [str(one) for one in arguments])
    assert run.exit_code == 0, run.output
    assert "x2, halo 3 px" in run.stdout
    (score,) = read_card(tmp_path / "models" / "espcn-x2").scores
    assert (score.pictures, score.scale) == (1, 2)
    assert 15 < score.model.psnr_y < score.bicubic.psnr_y
