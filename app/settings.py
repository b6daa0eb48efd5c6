"""The service's settings: environment variables with the prefix ``SUPERRES_``."""

from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.logs import LogFormat
from superres.codecs import MAX_INPUT_PIXELS, MAX_OUTPUT_PIXELS
from superres.engines.base import PrecisionChoice, Runtime
from superres.models.registry import DEFAULT_MODEL, DEFAULT_MODELS

DEFAULT_JOBS = DEFAULT_MODELS.with_name("jobs")
IMAGE_COMMIT = DEFAULT_MODELS.with_name("COMMIT")
"""File in an image, with the commit that it was built from."""


class Settings(BaseSettings):
    """Every knob, with its default. Frozen: handed in, never changed."""

    model_config = SettingsConfigDict(env_prefix="SUPERRES_", frozen=True, extra="forbid")

    models: Path = Field(DEFAULT_MODELS, description="The models folder.")
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|gpu:\d+)$",
        description="auto (a GPU if there is one), cpu, or gpu:N.",
    )
    precision: PrecisionChoice = Field(
        "auto", description="float32, bfloat16, or auto: the faster, found by trial at start-up."
    )
    runtime: Runtime = Field(
        "auto",
        description="tensorflow, onnxruntime, or auto: the fastest that is installed.",
    )
    default_model: str = Field(
        DEFAULT_MODEL,
        description="The model where a caller names none: auto, a family, a name, or bicubic.",
    )
    preload: str = Field(
        "",
        description="Families and names, separated by commas, or all: loaded at the start, after "
        "those of the default. Any other model is loaded at its first use.",
    )
    max_body_bytes: int = Field(
        64 * 2**20, ge=1, description="Most bytes of a request's body; enforced while reading."
    )
    max_input_pixels: int = Field(
        MAX_INPUT_PIXELS, ge=1, description="Most pixels of a picture sent."
    )
    max_output_pixels: int = Field(
        MAX_OUTPUT_PIXELS, ge=1, description="Most pixels of a picture made."
    )
    max_requests: int = Field(
        12, ge=1, description="Pictures being worked on at once; one more is answered 503."
    )
    max_memory_bytes: int = Field(
        4 * 2**30,
        ge=1,
        description="Memory that all requests together may take; one more is answered 503.",
    )
    deadline_s: float = Field(
        120,
        gt=0,
        description="Seconds after which a request is answered 504; X-Deadline-Ms asks for less.",
    )
    idle_timeout_s: float = Field(
        30,
        gt=0,
        description="Longest pause of a body that arrives, or of an answer that is taken, in "
        "seconds.",
    )
    min_bytes_per_s: float = Field(
        1000, gt=0, description="Lowest rate of a body, over a longer time than such a pause."
    )
    drain_s: float = Field(
        30, ge=0, description="Seconds that what is in flight may take after SIGTERM."
    )
    stalled_s: float = Field(
        60, gt=0, description="Seconds without a tile done after which the device has stalled."
    )
    tiles_in_flight: int = Field(
        16, ge=1, description="On a cluster, tiles that are with its devices at once."
    )
    jobs: Path | str = Field(
        DEFAULT_JOBS,
        description="The folder of jobs; one service alone may work in it, unless they share "
        "SUPERRES_JOBS_DATABASE: then it may be a bucket, s3://BUCKET/FOLDER.",
    )
    jobs_database: SecretStr = Field(
        SecretStr(""),
        description="postgresql://USER:PASSWORD@HOST/NAME, for services that share their jobs.",
    )
    jobs_at_once: int = Field(
        2, ge=1, description="Jobs being worked on at once, of the pictures that may be."
    )
    max_waiting_jobs: int = Field(
        100, ge=1, description="Jobs that wait for their turn; one more is answered 503."
    )
    max_jobs_bytes: int = Field(
        10 * 2**30,
        ge=1,
        description="Bytes of uploads and results; old results make room for new ones.",
    )
    max_watchers: int = Field(
        200, ge=1, description="Streams of jobs' events open at once; one more is answered 503."
    )
    max_watchers_per_key: int = Field(
        50, ge=1, description="The same with one key; one more is answered 429."
    )
    keep_jobs_s: float = Field(
        86_400, gt=0, description="Seconds that a job is kept after it has ended."
    )
    job_deadline_s: float = Field(
        3600, gt=0, description="Seconds of work after which a job is given up."
    )
    callback_hosts: str = Field(
        "",
        description="[http://]HOST[:PORT], separated by commas: hosts that the service may call "
        "when a job has ended. Default: none.",
    )
    callback_secret: SecretStr = Field(
        SecretStr(""),
        description="whsec_..., separated by commas: secrets that sign these calls.",
    )
    api_keys: SecretStr = Field(
        SecretStr(""), description="NAME:SHA256[:admin][:LIMIT], separated by commas."
    )
    rate_limit: str = Field(
        "120/minute", description="Requests allowed with a key that has no limit of its own."
    )
    without_keys: bool = Field(
        False, description="Listen beyond loopback though there are no keys."
    )
    cors_origins: str = Field(
        "", description="Origins, separated by commas, whose pages may call; * is all."
    )
    trusted_hosts: str = Field(
        "",
        description="Names, separated by commas, by which the service is called; * is all. "
        "Default: all, but localhost, 127.0.0.1 and [::1] without keys.",
    )
    log_format: LogFormat = Field(
        "console", description="Of the log's lines: console, for people, or json."
    )
    traces: bool = Field(
        False, description="OpenTelemetry traces, to where the OTEL_* variables say."
    )
    provenance: bool = Field(
        True,
        description="Tell in the XMP of results that a model enhanced them, and which; nothing is "
        "told with metadata=strip, or of bicubic.",
    )
    commit: str = Field("unknown", description="Commit that the image was built from.")

    @property
    def known_commit(self) -> str:
        """The commit of the setting, or else of the image."""
        if self.commit == "unknown" and IMAGE_COMMIT.is_file():
            return IMAGE_COMMIT.read_text().strip()
        return self.commit
