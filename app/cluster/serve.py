"""The service on a Ray cluster: the same app as Ray Serve's ingress, and devices as a deployment.

A replica of ``Front`` runs the app of :mod:`app.main`. Its engines send their tiles to the replicas
of :class:`Device`; each of these has a share of a machine's processors, or its own GPU. Ray Serve
places the replicas, sets their number, replaces those that die, and chooses the replica for each
tile. The answer to a tile depends only on the tile, so the tiles of a lost replica are sent to
another one.
"""

import asyncio
import gc
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import ray
from fastapi import FastAPI
from pydantic import SecretStr
from ray import serve
from ray.exceptions import NodeDiedError, ObjectLostError, RayActorError, RayTaskError
from ray.serve.config import ProxyLocation
from ray.serve.exceptions import BackPressureError
from ray.serve.handle import DeploymentHandle
from starlette.types import Receive, Scope, Send
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

from app.cluster.connect import connect, secret_settings
from app.drain import Drain
from app.inference.startup import default_cards, preloaded_cards
from app.logs import configure
from app.main import create_app
from app.settings import Settings
from superres.arrays import TileBatch
from superres.engines import load_engine
from superres.engines.base import LoadedEngine, Precision, PrecisionChoice
from superres.errors import Busy, NotReady, SuperresError
from superres.models.card import ModelCard
from superres.models.registry import all_cards, read_cards

Result = TypeVar("Result")

APPLICATION = "superres"
LOST = (RayActorError, NodeDiedError, ObjectLostError)
"""Errors of a call whose replica or machine is lost."""


class Device:
    """Runs the models on one GPU, or in as many threads as it has processors."""

    def __init__(self) -> None:
        self._settings = Settings()
        resources: dict[str, float] = ray.get_runtime_context().get_assigned_resources()
        os.environ.setdefault("TF_NUM_INTRAOP_THREADS", str(max(1, round(resources.get("CPU", 1)))))
        self._thread = ThreadPoolExecutor(1)
        self._busy_since: float | None = None
        """Start of the call in progress, by :func:`time.monotonic`."""
        self._engines: list[LoadedEngine] = []
        cards = all_cards(self._settings.models)
        wanted = (
            *default_cards(self._settings.default_model, cards),
            *preloaded_cards(self._settings.preload, cards),
        )
        for card in {card.name: card for card in wanted}.values():
            if card.files:  # bicubic needs no device
                self._load(card, self._settings.precision)

    def check_health(self) -> None:
        """Return if the device works; Ray Serve replaces a replica that raises.

        Raises:
            NotReady: the device hangs.
        """
        since, bound = self._busy_since, self._settings.stalled_s
        if since is not None and time.monotonic() - since > bound:
            raise NotReady(f"the device has stalled: at most {bound:g} s are allowed for a tile")

    async def describe(self, label: str) -> tuple[Precision, str]:
        """Precision and device of a model, which is loaded if necessary.

        Args:
            label: name and short hash.

        Raises:
            NotReady: this machine's models folder has no such model.
            ModelMismatch: the model differs from its card.
        """
        engine = await self._run(partial(self._engine, label, self._settings.precision))
        return engine.precision, engine.device

    async def predict(self, label: str, precision: Precision, tiles: TileBatch) -> TileBatch:
        """Run a model; see :meth:`superres.engines.base.Engine.predict`.

        Args:
            label: name and short hash.
            precision: for uint8 tiles; the same for all replicas, or the tiles of one picture
                would differ.
            tiles: as for an engine.

        Raises:
            NotReady: this machine's models folder has no such model.
            EngineError: the device failed.
        """
        return await self._run(lambda: self._engine(label, precision).predict(tiles))

    async def _run(self, work: Callable[[], Result]) -> Result:
        def timed() -> Result:
            self._busy_since = time.monotonic()
            try:
                return work()
            finally:
                self._busy_since = None

        return await asyncio.get_running_loop().run_in_executor(self._thread, timed)

    def _engine(self, label: str, precision: PrecisionChoice) -> LoadedEngine:
        for engine in self._engines:
            if _label(engine.card) != label:
                continue
            if precision in ("auto", engine.precision) or (
                precision == "int8" and engine.card.int8 is None  # computes in float32 then
            ):
                return engine
        # It is not one of those, or was replaced after this replica had started.
        for card in read_cards(self._settings.models):
            if _label(card) == label:
                return self._load(card, precision)
        raise NotReady(f"{label} is not in the models folder of a device", retry_after=5)

    def _load(self, card: ModelCard, precision: PrecisionChoice) -> LoadedEngine:
        settings = self._settings
        engine = load_engine(
            settings.models / card.name,
            card,
            precision=precision,
            device=settings.device,
            runtime=settings.runtime,
        )
        # Keep the previous engine of this name: requests that began with it end with it. Requests
        # of earlier engines have ended.
        for old in [other for other in self._engines if other.card.name == card.name][:-1]:
            self._engines.remove(old)
        self._engines.append(engine)
        gc.collect()
        return engine


class RemoteEngine:
    """The engine of a model that runs on the cluster's devices.

    Args:
        devices: the handle of :class:`Device`.
        calls_at_once: tiles that all devices have at once.
        stalled_s: seconds to wait for an answer.
        card: the model's card.

    Raises:
        ModelMismatch, NotReady: as :meth:`Device.describe`.
    """

    batch = 1
    """Tiles in a call, so that the tiles of a picture are distributed over the devices."""

    def __init__(
        self, devices: DeploymentHandle, calls_at_once: int, stalled_s: float, card: ModelCard
    ) -> None:
        self._devices = devices
        self.calls_at_once = calls_at_once
        self._stalled_s = stalled_s
        self._label = _label(card)
        # No timeout: the cluster may have to start machines first.
        self.precision, self.device = self._ask("describe", seconds=None)

    def predict(self, tiles: TileBatch) -> TileBatch:
        """Send the tiles to a replica; see :meth:`superres.engines.base.Engine.predict`.

        Raises:
            Busy: too many tiles wait for the replicas.
            NotReady: no replica answers.
            EngineError: the device failed.
        """
        answers: TileBatch = self._ask("predict", self.precision, tiles, seconds=self._stalled_s)
        return answers

    def _ask(self, method: str, *arguments: Any, seconds: float | None) -> Any:
        retrying = Retrying(
            retry=retry_if_exception_type(LOST),
            stop=stop_after_delay(self._stalled_s),
            wait=wait_random_exponential(multiplier=0.1, max=2),
            reraise=True,
        )
        try:
            return retrying(self._ask_once, method, *arguments, seconds=seconds)
        except LOST as error:
            raise NotReady(
                f"for {self._stalled_s:g} s, every device that was asked was lost: "
                f"{type(error).__name__}",
                retry_after=10,
            ) from error

    def _ask_once(self, method: str, *arguments: Any, seconds: float | None) -> Any:
        response = getattr(self._devices, method).remote(self._label, *arguments)
        try:
            return response.result(timeout_s=seconds)
        except TimeoutError as error:
            response.cancel()
            raise NotReady(f"no device answered in {seconds:g} s", retry_after=10) from error
        except BackPressureError as error:
            raise Busy(f"too many tiles wait for a device: {error}", retry_after=2) from error
        except RayTaskError as error:
            if isinstance(error.cause, SuperresError):  # whose message is without a traceback
                raise error.cause from None
            raise


def _label(card: ModelCard) -> str:
    return f"{card.name}@{card.short_hash}"


def _front() -> "_WithState":
    """The app whose tiles go to the devices; called in the front's process."""
    settings = Settings()
    configure(settings.log_format)
    devices = serve.get_deployment_handle(Devices.name, serve.get_replica_context().app_name)
    # Directly to the replica: through Ray's object stores, tiles were seconds late under load.
    devices = devices.options(_by_reference=False)

    def load_engine(folder: Path, card: ModelCard) -> RemoteEngine:
        return RemoteEngine(devices, settings.tiles_in_flight, settings.stalled_s, card)

    return _WithState(create_app(settings, load_engine=load_engine))


class _WithState:
    """An app whose requests get the lifespan's state: uvicorn gives it, and Ray Serve does not."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._state: dict[str, Any] = {}
        self.drain: Drain = app.state.drain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"] = self._state if scope["type"] == "lifespan" else dict(self._state)
        await self._app(scope, receive, send)


class _Ingress:
    """Methods of a front's replica, besides HTTP.

    Args:
        devices: the handle of :class:`Device`. It is a parameter so that Ray Serve deploys the
            devices with the front; the app finds them by name.
        secrets: see :func:`app.cluster.connect.secret_settings`.
    """

    app: _WithState  # set by Ray Serve's wrapper, after the constructor

    def __init__(
        self, devices: DeploymentHandle, secrets: Mapping[str, SecretStr] | None = None
    ) -> None:
        for name, value in (secrets or {}).items():
            os.environ[name] = value.get_secret_value()

    async def drain(self) -> None:
        """Finish the requests in flight, and accept no more.

        Without this, Ray Serve would stop the devices first.
        """
        await self.app.drain.finish()


ENVIRONMENT = {"RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": str(64 * 2**20)}
"""Environment of every process of the service on the cluster.

Without it, Ray Serve refuses tiles above 4 MB.
"""

Devices = serve.deployment(
    logging_config={"enable_access_log": False},  # it would have a line for each tile
    ray_actor_options={"num_cpus": 1},
    autoscaling_config={"min_replicas": 1, "max_replicas": 8, "target_ongoing_requests": 2},
    # A tile that a replica cannot begin soon waits in the router, for the next free replica.
    max_ongoing_requests=4,
    max_queued_requests=64,
    # How often the router looks for a free replica; the default is up to 0.5 s.
    request_router_config={
        "initial_backoff_s": 0.05,
        "backoff_multiplier": 1,
        "max_backoff_s": 0.05,
    },
)(Device)

Front = serve.deployment(
    name="Front",
    logging_config={"enable_access_log": False},  # the app's own line has more
    # The jobs' folder is on the head's disk; and a process on the head is lost only with the head.
    ray_actor_options={"num_cpus": 0, "resources": {"node:__internal_head__": 0.001}},
    # The app itself decides which requests have to wait.
    max_ongoing_requests=1000,
    graceful_shutdown_timeout_s=40,  # SUPERRES_DRAIN_S, and the time to send the last answers
)(serve.ingress(_front)(_Ingress))

application = Front.bind(Devices.bind())
"""The application of serve.yaml, which sets the resources of a device."""


def device_share(resources: Mapping[str, float], device: str) -> dict[str, float]:
    """Resources that Ray reserves for each replica of :class:`Device`.

    Args:
        resources: the cluster's.
        device: the setting ``SUPERRES_DEVICE``.
    """
    on_gpus = device != "cpu" and resources.get("GPU", 0) >= 1
    return {"num_cpus": 1, "num_gpus": 1} if on_gpus else {"num_cpus": 1}


def serve_on_cluster(host: str, port: int) -> None:
    """Serve from a cluster until SIGTERM or SIGINT, then finish the requests in flight.

    :func:`app.cluster.connect.connect` chooses the cluster.
    """
    os.environ.update(ENVIRONMENT)
    connect(logs=True)
    # Before the start: the service may answer, and be stopped, before serve.run returns.
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):  # replaces Ray's handlers
        signal.signal(number, lambda *_: stop.set())
    serve.start(proxy_location=ProxyLocation.HeadOnly, http_options={"host": host, "port": port})
    share = device_share(ray.cluster_resources(), Settings().device)
    devices = Devices.options(ray_actor_options=share).bind()
    serve.run(Front.bind(devices, secret_settings(os.environ)), name=APPLICATION)
    stop.wait()
    serve.get_app_handle(APPLICATION).drain.remote().result()
    serve.delete(APPLICATION)
    ray.shutdown()
