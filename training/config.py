"""Configuration of a training run: frozen and validated. An unknown key is an error."""

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
    """Weights of the terms of a loss, which are summed; ``"l1"`` is short for ``{l1 = 1}``."""

    l1: float = Field(0, ge=0)
    """Weight of the mean absolute error."""
    mse: float = Field(0, ge=0)
    """Weight of the mean squared error."""
    fft: float = Field(0, ge=0)
    """Weight of the mean absolute difference of Fourier coefficients, real and imaginary parts."""
    ssim: float = Field(0, ge=0)
    """Weight of (1 - SSIM) / 2."""
    vgg19: float = Field(0, ge=0)
    """Weight of the mean squared difference of VGG19's block3_conv3 features."""
    sigmoid: bool = False
    """Whether a sigmoid is applied to the MSE and VGG19 terms, as in the upstream project."""


class PicturesConfig(_Frozen):
    """A set of pictures."""

    name: Name
    """Name of the folder in the data root that holds ``manifest.csv`` and the pictures."""
    manifest_sha256: Sha256 | None = None
    """Hash of ``manifest.csv``. A committed config has it; without it, any manifest is accepted."""
    where: str | None = None
    """Rows of the manifest to use, as ``COLUMN=VALUE``. If the manifest has no column ``split``,
    it is the first folder of each file."""


class DataConfig(PicturesConfig):
    """A set of training pictures."""

    shrinks: tuple[float, ...] = Field(min_length=1)
    """Factors to shrink pictures by; one is drawn for each crop. 1 keeps the size."""


class ValidationConfig(PicturesConfig):
    """The set that is used to choose the best weights."""

    pictures: int | None = Field(None, ge=1)
    """Number of pictures, spread evenly over the set; all by default."""
    choose_by: Literal["clean", "degraded", "mean", "loss"]
    """Criterion for the best weights: the highest PSNR of luma (on clean pictures, on degraded
    pictures, or the mean of both), or the lowest loss on clean pictures."""


class StageConfig(_Frozen):
    """A stage of a run. The next stage continues with its weights and optimizer state."""

    name: Name
    steps: int = Field(ge=1)
    steps_per_validation: int = Field(ge=1)
    """Steps between two validations. The last step of a stage is always validated."""
    warmup_steps: int = Field(0, ge=0)
    """Steps over which the learning rate rises from zero."""
    learning_rate: float = Field(gt=0)
    final_learning_rate: float | None = Field(None, gt=0)
    """Learning rate at the end of a linear decay over the steps after the warm-up. Without it,
    the learning rate is constant and the stage can be extended."""
    loss: LossConfig
    batch_size: int = Field(ge=1)
    patch_size: int | None = Field(None, ge=16)
    """Side of the HR patches, px: random crops, rotated and flipped."""
    whole_pictures: bool = False
    """Whether to train on whole pictures of one size, each once per epoch, instead of crops."""
    borders: Literal["replicate", "zero"]
    """Padding beyond the picture's border: replicated edge pixels, as in serving, or zeros."""
    patience: int | None = Field(None, ge=1)
    """Validations without an improvement after which the stage ends early."""

    @field_validator("loss", mode="before")
    @classmethod
    def _name_of_one_term(cls, loss: object) -> object:
        return {loss: 1.0} if isinstance(loss, str) else loss

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self.warmup_steps >= self.steps:
            raise ValueError(
                f"warmup_steps must be less than steps ({self.steps}), not {self.warmup_steps}"
            )
        if self.whole_pictures == (self.patch_size is not None):
            raise ValueError(
                "a stage needs either patch_size or whole_pictures = true, and not both"
            )
        return self

    @property
    def constant(self) -> bool:
        """Whether the learning rate is constant after the warm-up."""
        return self.final_learning_rate is None


class TrainingConfig(_Frozen):
    """Everything that a run depends on except its picture files, as one TOML file."""

    name: Name
    """Name of the config, and of the folder of its run."""
    family: Name
    """Family of the model, which is named after it and the scale."""
    network: Literal[
        "srcnn_935",
        "edsr_2x8",
        "edsr_4x64",
        "edsr_5x32",
        "edsr_6x48",
        "edsr_12x32",
        "edsr_12x32_wide",
        "edsr_16x32",
        "edsr_20x32",
        "edsr_folded_10x64",
        "plain_24x32",
        "plain_24x32_wide",
        "span_6x28",
    ]
    """A key of ``training.networks.NETWORKS``."""
    skip: bool
    """Whether the network predicts the difference from bicubic instead of the whole picture."""
    centred: bool = True
    """Whether pixels are shifted so that mid-grey is zero; otherwise they range from 0 to 1."""
    scale: int = Field(ge=2, le=4)
    start_from: Name | None = None
    """Name of the committed config whose weights initialise this run: of the same network, or of
    an EDSR with fewer blocks."""

    optimizer: Literal["adam", "soap"] = "adam"
    """SOAP needs far fewer steps than Adam here; see :mod:`training.soap`."""
    basis_steps: int = Field(20, ge=1)
    """Steps between two updates of SOAP's bases, which are far slower on a GPU than a step."""
    weight_decay: float = Field(0, ge=0)
    """Decoupled weight decay, multiplied by the learning rate. bfloat16 rounds small weights with
    less error."""
    ema_momentum: float = Field(ge=0, lt=1)
    """Momentum of the moving average of the weights, which is validated and exported."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """``auto`` chooses the faster precision by a timed trial on this machine."""
    seed: int = Field(ge=0)

    validation: ValidationConfig
    data: tuple[DataConfig, ...] = Field(min_length=1)
    shuffle_channels: bool = False
    """Whether to permute the colour channels of each crop at random, as data augmentation."""
    keep_size: bool = False
    """Whether to keep the size of pictures whose sides are not multiples of the scale; otherwise
    they are cropped."""
    degradations: Degradations | None = None
    """Degradations of the LR pictures; without them, LR pictures are clean."""
    stages: tuple[StageConfig, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        names = [stage.name for stage in self.stages]
        if len(set(names)) < len(names):
            raise ValueError(f"the names of stages must be unique, not {', '.join(names)}")
        if self.validation.choose_by == "loss" and len(self.stages) > 1:
            raise ValueError(
                "choose_by = loss needs a run of one stage: the losses of stages are not comparable"
            )
        if any(stage.whole_pictures for stage in self.stages) and (
            self.degradations is not None or any(data.shrinks != (1.0,) for data in self.data)
        ):
            raise ValueError("whole_pictures needs shrinks = [1.0] and no degradations")
        if self.keep_size and self.validation.choose_by not in ("clean", "loss"):
            raise ValueError(
                "keep_size needs choose_by = clean or loss: it has no degraded pictures"
            )
        if self.keep_size and not all(stage.whole_pictures for stage in self.stages):
            raise ValueError("keep_size needs whole_pictures in every stage")
        return self

    @property
    def all_pictures(self) -> tuple[PicturesConfig, ...]:
        """The training sets, followed by the validation set."""
        return (*self.data, self.validation)

    @property
    def sha256(self) -> str:
        """SHA-256 of the values; the layout and comments of the file do not matter."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


def model_name(family: str, scale: int) -> str:
    """Name of the model of a family at a scale, which one config makes or several in turn."""
    return f"{family}-x{scale}"


def configs_folder() -> Path:
    """Folder of the committed configs."""
    return Path(str(files("training"))) / "configs"


def load_config(name_or_path: str) -> TrainingConfig:
    """Read a committed config by name (``srcnn-x3``), or any TOML file by path.

    Raises:
        FileNotFoundError: no such config; the message lists the committed ones.
        ValueError: the name in a committed config is not the name of its file.
        pydantic.ValidationError: a value or a key is not allowed.
    """
    path = configs_folder() / f"{name_or_path}.toml"
    committed = re.fullmatch(r"[a-z0-9-]+", name_or_path) is not None and path.is_file()
    if not committed:
        path = Path(name_or_path)
    if not path.is_file():
        names = ", ".join(sorted(p.stem for p in configs_folder().glob("*.toml")))
        raise FileNotFoundError(f"no config {name_or_path!r}: give a TOML file or one of {names}")
    config = TrainingConfig.model_validate(tomllib.loads(path.read_text()))
    if committed and config.name != name_or_path:
        raise ValueError(f"{path} says name = {config.name!r}")
    return config


def parents(config: TrainingConfig) -> list[TrainingConfig]:
    """The committed configs that a run depends on, in the order to train them.

    Raises:
        FileNotFoundError: one of them is not committed.
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
