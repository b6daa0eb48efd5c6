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
    """Every setting, with its default. Frozen: handed in, never changed.

    The descriptions are the page docs/reference/settings.md.
    """

    model_config = SettingsConfigDict(env_prefix="SUPERRES_", frozen=True, extra="forbid")

    models: Path = Field(DEFAULT_MODELS, description="The models folder.")
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|gpu:\d+)$",
        description="`auto` (a GPU if there is one), `cpu` or `gpu:N`.",
    )
    precision: PrecisionChoice = Field(
        "auto",
        description="`float32`, `bfloat16`, `int8` (by ONNX Runtime on a CPU; `float32` for "
        "models that do not offer it), or `auto`: the fastest, found by a trial when a model is "
        "loaded; `int8` only where it is 1.3 times as fast as the others.",
    )
    runtime: Runtime = Field(
        "auto",
        description="`tensorflow`, `onnxruntime`, or `auto`: the faster of those "
        "that are installed.",
    )
    default_model: str = Field(
        DEFAULT_MODEL,
        description="The model of an enhancement where the caller names none: `auto`, a family, a "
        "name or `bicubic`. Comparisons take `srcnn`.",
    )
    preload: str = Field(
        "",
        description="Families and names, separated by commas, `auto` for all families that it "
        "uses, or `all`: loaded at the start, after those of the default at x3. Any other model "
        "is loaded at its first use.",
    )
    max_body_bytes: int = Field(
        64 * 2**20, ge=1, description="Most bytes of a request's body; enforced while it is read."
    )
    max_input_pixels: int = Field(
        MAX_INPUT_PIXELS,
        ge=1,
        description="Most pixels of an input picture; checked from its header.",
    )
    max_output_pixels: int = Field(
        MAX_OUTPUT_PIXELS, ge=1, description="Most pixels of an output picture."
    )
    max_requests: int = Field(
        12, ge=1, description="Pictures in progress at once; one more is answered 503."
    )
    max_memory_bytes: int = Field(
        4 * 2**30,
        ge=1,
        description="Bytes of memory that all requests together may take, from the first byte of a "
        "body to the last byte of its response; one more is answered 503.",
    )
    deadline_s: float = Field(
        120,
        gt=0,
        description="Most seconds from the last byte of a request to its response, which is then "
        "504; `X-Deadline-Ms` asks for less.",
    )
    idle_timeout_s: float = Field(
        30,
        gt=0,
        description="Longest pause of a body that arrives, and of a response that is sent, in "
        "seconds.",
    )
    min_bytes_per_s: float = Field(
        1000, gt=0, description="Lowest rate of a body, over a longer time than that pause."
    )
    drain_s: float = Field(
        30, ge=0, description="Seconds that requests in flight may take after SIGTERM."
    )
    stalled_s: float = Field(
        60,
        gt=0,
        description="Seconds without a finished tile while one waits, after which the service "
        "is not ready.",
    )
    tiles_in_flight: int = Field(
        16, ge=1, description="On a cluster, tiles that are at its devices at once."
    )
    jobs: Path | str = Field(
        DEFAULT_JOBS,
        description="The folder of the jobs. One service alone may use it, unless the services "
        "share `SUPERRES_JOBS_DATABASE`: then it may also be a bucket, `s3://BUCKET/FOLDER`.",
    )
    jobs_database: SecretStr = Field(
        SecretStr(""),
        description="`postgresql://USER:PASSWORD@HOST/NAME`, for services that share their jobs.",
    )
    jobs_at_once: int = Field(
        2,
        ge=1,
        description="Running jobs at once; they count towards `SUPERRES_MAX_REQUESTS`.",
    )
    max_waiting_jobs: int = Field(
        100, ge=1, description="Most waiting jobs; one more is answered 503."
    )
    max_jobs_bytes: int = Field(
        10 * 2**30,
        ge=1,
        description="Most bytes of uploads and results. For new ones, the oldest results of the "
        "key that has the most are removed.",
    )
    max_watchers: int = Field(
        200,
        ge=1,
        description="Most streams of `GET /jobs/ID/events` at once; one more is answered 503.",
    )
    max_watchers_per_key: int = Field(
        50, ge=1, description="The same for the jobs of one key; one more is answered 429."
    )
    keep_jobs_s: float = Field(
        86_400, gt=0, description="Seconds that a job is kept after its end."
    )
    job_deadline_s: float = Field(3600, gt=0, description="Most seconds of work on a job.")
    callback_hosts: str = Field(
        "",
        description="`[http://]HOST[:PORT]`, separated by commas: hosts that the service may call "
        "when a job has ended. Without this list, callers could have requests sent into your "
        "network.",
    )
    callback_secret: SecretStr = Field(
        SecretStr(""),
        description="`whsec_...`, separated by commas: each of these secrets signs these calls.",
    )
    api_keys: SecretStr = Field(
        SecretStr(""),
        description="`NAME:SHA256[:admin][:LIMIT]`, separated by commas, as `superres key` prints "
        "them.",
    )
    rate_limit: str = Field(
        "120/minute", description="Requests allowed with a key that has no limit of its own."
    )
    without_keys: bool = Field(
        False, description="Listen beyond loopback though there are no keys."
    )
    cors_origins: str = Field(
        "",
        description="Origins, separated by commas, whose pages may call the service; `*` is all.",
    )
    trusted_hosts: str = Field(
        "",
        description="Names, separated by commas, by which the service is called, as `example.org` "
        "or `*.example.org`; `*` is all. Default: all; without keys `localhost,127.0.0.1,[::1]`.",
    )
    log_format: LogFormat = Field(
        "console", description="Format of the log's lines: `console`, for people, or `json`."
    )
    traces: bool = Field(
        False,
        description="Send OpenTelemetry traces; the `OTEL_*` variables set the destination.",
    )
    provenance: bool = Field(
        True,
        description="Write into the XMP of results that a model enhanced them, and which; not with "
        "`metadata=strip`, and not for `bicubic`.",
    )
    commit: str = Field("unknown", description="The commit that `GET /version` shows.")

    @property
    def known_commit(self) -> str:
        """The commit of the setting, or else of the image."""
        if self.commit == "unknown" and IMAGE_COMMIT.is_file():
            return IMAGE_COMMIT.read_text().strip()
        return self.commit
