"""A training run, as data: frozen, validated, an unknown key is an error."""

import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Quality = Annotated[int, Field(ge=1, le=100)]


class LossConfig(BaseModel):
    """Weights of the terms that a loss adds up, and how; ``"l1"`` is short for ``{l1 = 1}``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    l1: float = Field(0, ge=0)
    """Of the mean absolute error."""
    mse: float = Field(0, ge=0)
    """Of the mean squared error."""
    ssim: float = Field(0, ge=0)
    """Of (1 - SSIM) / 2."""
    vgg19: float = Field(0, ge=0)
    """Of the mean squared difference of VGG19's block3_conv3 features."""
    sigmoid: bool = False
    """Whether MSE and the VGG19 term go through a sigmoid, as the upstream project has it."""


class Degradation(BaseModel):
    """What happens to a small picture after shrinking, in this order, each drawn from a range."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    blur: tuple[float, float] | None = None
    """Standard deviation of a Gaussian, px of the small picture."""
    noise: tuple[float, float] | None = None
    """Standard deviation of Gaussian noise, levels of 255."""
    jpeg: tuple[Quality, Quality] | None = None
    """Quality of a JPEG with 4:2:0 chroma."""


class TrainingConfig(BaseModel):
    """What a run depends on besides its pictures. One TOML file a model, in ``configs/``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")
    """The model's name, and its folder's."""
    family: str = Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")
    network: Literal["srcnn_935", "edsr_4x64", "edsr_5x32", "edsr_12x32"]
    """One of ``training.networks.NETWORKS``."""
    skip: bool
    """Whether the network predicts the difference to bicubic, or the whole picture."""
    scale: int = Field(ge=2, le=4)

    loss: LossConfig
    optimizer: Literal["adam", "soap"] = "adam"
    """SOAP needs far fewer steps here; see :mod:`training.soap`."""
    learning_rate: float = Field(gt=0)
    final_learning_rate: float = Field(gt=0)
    """Where the cosine schedule ends."""
    warmup_steps: int = Field(0, ge=0)
    """Steps over which the learning rate rises from zero, before the cosine."""
    centred: bool = True
    """Whether the first layer sees mid-grey as zero, or pixels from 0 to 1."""
    weight_decay: float = Field(0, ge=0)
    """Decoupled, times the learning rate: small weights lose less when bfloat16 rounds them."""
    ema_momentum: float = Field(ge=0, lt=1)
    """Of the weights that are validated and exported: the average over steps."""
    batch_size: int = Field(ge=1)
    patch_size: int | None = Field(None, ge=16)
    """Side of the HR patch that the loss sees, px: crops at random, turned and flipped.
    Without it, whole pictures, which must be of one size, each once an epoch."""
    borders: Literal["replicate", "zero"] = "replicate"
    """What the network sees beyond a picture: its edge, as in serving, or zeros."""
    shuffle_channels: bool = False
    """Whether a crop's red, green and blue change places at random: more pictures from few."""
    keep_size: bool = False
    """Whether a picture whose side does not divide by the scale is kept whole, not cropped."""
    shrinks: tuple[float, ...]
    """Every picture is learned from at each of these factors (1 is the picture itself)."""
    degradation: Degradation = Degradation()
    """What the small pictures went through, those of validation too."""
    steps: int = Field(ge=1)
    steps_per_validation: int = Field(ge=1)
    patience: int = Field(ge=1)
    """Validations without a better one before the run stops."""
    choose_by: Literal["psnr_y", "loss"] = "psnr_y"
    """What makes a validation the best: the highest PSNR of luma, or the lowest loss."""

    precision: Literal["auto", "float32", "bfloat16"]
    seed: int = Field(ge=0)

    @field_validator("loss", mode="before")
    @classmethod
    def _name_of_one_term(cls, loss: object) -> object:
        return {loss: 1.0} if isinstance(loss, str) else loss

    @model_validator(mode="after")
    def _steps_fit(self) -> Self:
        if self.warmup_steps >= self.steps:
            raise ValueError(f"warmup_steps is under steps ({self.steps}), not {self.warmup_steps}")
        if self.steps % self.steps_per_validation:
            raise ValueError(
                f"steps is a multiple of steps_per_validation ({self.steps_per_validation}), "
                f"not {self.steps}"
            )
        return self


def load_config(name_or_path: str) -> TrainingConfig:
    """Read a config of this project by name (``srcnn-x3``), or any TOML file by path.

    Raises:
        FileNotFoundError: no such config; the message lists those there are.
        pydantic.ValidationError: a value or a key that is not allowed.
    """
    shipped = Path(str(files("training"))) / "configs"
    path = shipped / f"{name_or_path}.toml"
    if not path.is_file():
        path = Path(name_or_path)
    if not path.is_file():
        names = ", ".join(sorted(p.stem for p in shipped.glob("*.toml")))
        raise FileNotFoundError(f"no config {name_or_path!r}: give a TOML file, or one of {names}")
    return TrainingConfig.model_validate(tomllib.loads(path.read_text()))
