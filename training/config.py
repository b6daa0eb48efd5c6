"""A training run, as data: frozen, validated, an unknown key is an error."""

import hashlib
import re
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from training.degrade import Degradations

Name = Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LossConfig(_Frozen):
    """Weights of the terms that a loss adds up, and how; ``"l1"`` is short for ``{l1 = 1}``."""

    l1: float = Field(0, ge=0)
    """Of the mean absolute error."""
    mse: float = Field(0, ge=0)
    """Of the mean squared error."""
    fft: float = Field(0, ge=0)
    """Of the mean absolute difference of the Fourier coefficients' real and imaginary parts."""
    ssim: float = Field(0, ge=0)
    """Of (1 - SSIM) / 2."""
    vgg19: float = Field(0, ge=0)
    """Of the mean squared difference of VGG19's block3_conv3 features."""
    sigmoid: bool = False
    """Whether MSE and the VGG19 term go through a sigmoid, as the upstream project has it."""


class PicturesConfig(_Frozen):
    """A set of pictures."""

    name: Name
    """The folder under the data root; it holds ``manifest.csv`` and the pictures."""
    manifest_sha256: Sha256 | None = None
    """Without it any manifest will do; a committed config has it."""
    where: str | None = None
    """``COLUMN=VALUE``: only those rows of the manifest; ``split`` is a file's first folder."""


class DataConfig(PicturesConfig):
    """A set that a run learns from."""

    shrinks: tuple[float, ...] = Field(min_length=1)
    """Factors that crops are shrunk by, drawn per crop; 1 is the picture itself."""


class ValidationConfig(PicturesConfig):
    """The set that chooses the weights."""

    pictures: int | None = Field(None, ge=1)
    """How many of them, evenly through the set; without it, all."""
    choose_by: Literal["clean", "degraded", "mean", "loss"]
    """What makes a validation the best: the highest PSNR of luma (on clean pictures, on degraded
    ones, or the mean of both), or the lowest loss on clean ones."""


class StageConfig(_Frozen):
    """A part of a run. The weights and the optimizer's state go on from stage to stage."""

    name: Name
    steps: int = Field(ge=1)
    steps_per_validation: int = Field(ge=1)
    """The last step of a stage is always validated."""
    warmup_steps: int = Field(0, ge=0)
    """Steps over which the learning rate rises from zero."""
    learning_rate: float = Field(gt=0)
    final_learning_rate: float | None = Field(None, gt=0)
    """What the learning rate falls to, linearly, over the steps after the warm-up. Without it
    the learning rate is constant, and the stage can be extended."""
    loss: LossConfig
    batch_size: int = Field(ge=1)
    patch_size: int | None = Field(None, ge=16)
    """Side of the HR patch that the loss sees, px: crops at random, turned and flipped."""
    whole_pictures: bool = False
    """Learn from whole pictures of one size, each once an epoch, in place of crops."""
    borders: Literal["replicate", "zero"]
    """What the network sees beyond a picture: its edge, as in serving, or zeros."""
    patience: int | None = Field(None, ge=1)
    """Validations without a better one before the stage ends early."""

    @field_validator("loss", mode="before")
    @classmethod
    def _name_of_one_term(cls, loss: object) -> object:
        return {loss: 1.0} if isinstance(loss, str) else loss

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self.warmup_steps >= self.steps:
            raise ValueError(f"warmup_steps is under steps ({self.steps}), not {self.warmup_steps}")
        if self.whole_pictures == (self.patch_size is not None):
            raise ValueError("a stage has either a patch_size or whole_pictures = true")
        return self

    @property
    def constant(self) -> bool:
        """Whether the learning rate is constant after the warm-up."""
        return self.final_learning_rate is None


class TrainingConfig(_Frozen):
    """All that a run depends on besides the bytes of its pictures. One TOML file a model."""

    name: Name
    """The model's name, and its folder's."""
    family: Name
    network: Literal[
        "srcnn_935",
        "edsr_2x8",
        "edsr_4x64",
        "edsr_5x32",
        "edsr_6x48",
        "edsr_12x32",
        "edsr_12x32_wide",
        "edsr_16x32",
        "edsr_folded_10x64",
        "plain_24x32",
        "plain_24x32_wide",
        "span_6x28",
    ]
    """One of ``training.networks.NETWORKS``."""
    skip: bool
    """Whether the network predicts the difference to bicubic, or the whole picture."""
    centred: bool = True
    """Whether the first layer sees mid-grey as zero, or pixels from 0 to 1."""
    scale: int = Field(ge=2, le=4)
    start_from: Name | None = None
    """The committed config whose weights this run begins with."""

    optimizer: Literal["adam", "soap"] = "adam"
    """SOAP needs far fewer steps here; see :mod:`training.soap`."""
    basis_steps: int = Field(20, ge=1)
    """Steps between two updates of SOAP's bases, which take a GPU far longer than its steps."""
    weight_decay: float = Field(0, ge=0)
    """Decoupled, times the learning rate: small weights lose less when bfloat16 rounds them."""
    ema_momentum: float = Field(ge=0, lt=1)
    """Of the weights that are validated and exported: the average over steps."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """``auto`` takes the faster, by a timed trial on the machine at hand."""
    seed: int = Field(ge=0)

    validation: ValidationConfig
    data: tuple[DataConfig, ...] = Field(min_length=1)
    shuffle_channels: bool = False
    """Whether a crop's red, green and blue change places at random: more pictures from few."""
    keep_size: bool = False
    """Whether a picture whose side does not divide by the scale is kept whole, not cropped."""
    degradations: Degradations | None = None
    """What the small pictures go through; without it they are clean."""
    stages: tuple[StageConfig, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        names = [stage.name for stage in self.stages]
        if len(set(names)) < len(names):
            raise ValueError(f"stages have names of their own, not {', '.join(names)}")
        if self.validation.choose_by == "loss" and len(self.stages) > 1:
            raise ValueError("choose_by is loss in a run of one stage only: losses differ")
        if any(stage.whole_pictures for stage in self.stages) and (
            self.degradations is not None or any(data.shrinks != (1.0,) for data in self.data)
        ):
            raise ValueError("whole_pictures are neither shrunk nor degraded")
        if self.keep_size and self.validation.choose_by not in ("clean", "loss"):
            raise ValueError("with keep_size, choose_by is clean or loss: none are degraded")
        if self.keep_size and not all(stage.whole_pictures for stage in self.stages):
            raise ValueError("keep_size is for whole_pictures")
        return self

    @property
    def all_pictures(self) -> tuple[PicturesConfig, ...]:
        """The sets to learn from, and at last that of validation."""
        return (*self.data, self.validation)

    @property
    def sha256(self) -> str:
        """SHA-256 of the values, whatever the file's layout and comments."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


def configs_folder() -> Path:
    """Where the committed configs are."""
    return Path(str(files("training"))) / "configs"


def load_config(name_or_path: str) -> TrainingConfig:
    """Read a config of this project by name (``srcnn-x3``), or any TOML file by path.

    Raises:
        FileNotFoundError: no such config; the message lists those there are.
        ValueError: a committed config has another name than its file.
        pydantic.ValidationError: a value or a key that is not allowed.
    """
    path = configs_folder() / f"{name_or_path}.toml"
    committed = re.fullmatch(r"[a-z0-9-]+", name_or_path) is not None and path.is_file()
    if not committed:
        path = Path(name_or_path)
    if not path.is_file():
        names = ", ".join(sorted(p.stem for p in configs_folder().glob("*.toml")))
        raise FileNotFoundError(f"no config {name_or_path!r}: give a TOML file, or one of {names}")
    config = TrainingConfig.model_validate(tomllib.loads(path.read_text()))
    if committed and config.name != name_or_path:
        raise ValueError(f"{path} says name = {config.name!r}")
    return config


def legacy_models() -> dict[str, str]:
    """Shipped models that no command can make again, and why."""
    return tomllib.loads((Path(str(files("training"))) / "legacy.toml").read_text())


def parents(config: TrainingConfig) -> list[TrainingConfig]:
    """The committed configs that a run needs made before it, the first one first.

    Raises:
        FileNotFoundError: one is not committed.
        ValueError: a config starts from itself, directly or through others.
    """
    chain: list[TrainingConfig] = []
    names = {config.name}
    while (start := (chain[0] if chain else config).start_from) is not None:
        if start in names:
            raise ValueError(f"{start} starts from itself")
        names.add(start)
        if not (configs_folder() / f"{start}.toml").is_file():
            raise FileNotFoundError(f"{start}, which {config.name} starts from, is not committed")
        chain.insert(0, load_config(start))
    return chain
