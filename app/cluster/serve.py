"""The service on a Ray cluster: the same app as Ray Serve's ingress, and devices beside it.

A front is the app of :mod:`app.main`, whose engines send their tiles to the replicas of
:class:`Device`, each with a share of a machine's processors or a GPU of its own. Serve places and
counts the replicas, replaces what dies, and says which one takes a tile. An answer depends on
nothing but its tile, so a tile that a lost replica had is sent to another.

This needs the extra ``cluster``.
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
from ray import serve
from ray.exceptions import NodeDiedError, ObjectLostError, RayActorError, RayTaskError
from ray.serve.config import ProxyLocation
from ray.serve.exceptions import BackPressureError
from ray.serve.handle import DeploymentHandle
from starlette.types import Receive, Scope, Send
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

from app.cluster.connect import connect
from app.drain import Drain
from app.logs import configure
from app.main import create_app
from app.settings import Settings
from superres.arrays import TileBatch
from superres.card import ModelCard
from superres.engine import Precision, PrecisionChoice, SavedModelEngine
from superres.errors import Busy, NotReady, SuperresError
from superres.registry import read_cards

Result = TypeVar("Result")

APPLICATION = "superres"
LOST = (RayActorError, NodeDiedError, ObjectLostError)
"""How a call ends whose replica died, or whose answer went with its machine."""


class Device:
    """The owner of a GPU, or of as many threads as processors were given to it."""

    def __init__(self) -> None:
        self._settings = Settings()
        resources: dict[str, float] = ray.get_runtime_context().get_assigned_resources()
        os.environ.setdefault("TF_NUM_INTRAOP_THREADS", str(max(1, round(resources.get("CPU", 1)))))
        self._thread = ThreadPoolExecutor(1)
        self._at_work_since: float | None = None
        self._engines: list[SavedModelEngine] = []
        for card in read_cards(self._settings.models):
            self._load(card, self._settings.precision)

    def check_health(self) -> None:
        """Serve asks; a replica that raises is replaced.

        Raises:
            NotReady: the device hangs.
        """
        since, bound = self._at_work_since, self._settings.stalled_s
        if since is not None and time.monotonic() - since > bound:
            raise NotReady(f"the device has stalled: at most {bound:g} s are allowed for a tile")

    async def describe(self, label: str) -> tuple[Precision, str]:
        """Precision and device of a model, loaded if need be.

        Args:
            label: name and short hash.

        Raises:
            NotReady: the models folder here has no such model.
            ModelMismatch: it is not what its card says.
        """
        engine = await self._in_turn(partial(self._engine, label, self._settings.precision))
        return engine.precision, engine.device

    async def predict(self, label: str, precision: Precision, tiles: TileBatch) -> TileBatch:
        """Run a model; see :meth:`superres.engine.Engine.predict`.

        Args:
            label: name and short hash.
            precision: of uint8 tiles: one for all replicas, or a picture's tiles would differ.
            tiles: as for an engine.

        Raises:
            NotReady: the models folder here has no such model.
            EngineError: the device failed.
        """
        return await self._in_turn(lambda: self._engine(label, precision).predict(tiles))

    async def _in_turn(self, work: Callable[[], Result]) -> Result:
        def timed() -> Result:
            self._at_work_since = time.monotonic()
            try:
                return work()
            finally:
                self._at_work_since = None

        return await asyncio.get_running_loop().run_in_executor(self._thread, timed)

    def _engine(self, label: str, precision: PrecisionChoice) -> SavedModelEngine:
        for engine in self._engines:
            if _label(engine.card) == label and precision in ("auto", engine.precision):
                return engine
        # The models were replaced since this replica began.
        for card in read_cards(self._settings.models):
            if _label(card) == label:
                return self._load(card, precision)
        raise NotReady(f"{label} is not in the models folder of a device", retry_after=5)

    def _load(self, card: ModelCard, precision: PrecisionChoice) -> SavedModelEngine:
        folder, device = self._settings.models / card.name, self._settings.device
        engine = SavedModelEngine(folder, card, precision=precision, device=device)
        # Requests that began with the last one end with it; those before it have ended.
        for older in [one for one in self._engines if one.card.name == card.name][:-1]:
            self._engines.remove(older)
        self._engines.append(engine)
        gc.collect()
        return engine


class RemoteEngine:
    """A model on the cluster's devices, in the place of one on this process's own.

    Args:
        devices: the handle of :class:`Device`.
        stalled_s: seconds after which an answer is given up.
        card: the model's.

    Raises:
        ModelMismatch, NotReady: as :meth:`Device.describe`.
    """

    def __init__(self, devices: DeploymentHandle, stalled_s: float, card: ModelCard) -> None:
        self._devices = devices
        self._stalled_s = stalled_s
        self._label = _label(card)
        # Machines may have to be started first.
        self.precision, self.device = self._ask("describe", seconds=None)

    def predict(self, tiles: TileBatch) -> TileBatch:
        """Have the tiles answered by a replica; see :meth:`superres.engine.Engine.predict`.

        Raises:
            Busy: too many tiles wait for the replicas.
            NotReady: none of them answers.
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
    """The app, whose tiles go to the devices; called in the front's own process."""
    settings = Settings()
    configure(settings.log_format)
    devices = serve.get_deployment_handle(Devices.name, serve.get_replica_context().app_name)
    # Straight to the replica: by way of Ray's object stores, tiles came seconds late under load.
    devices = devices.options(_by_reference=False)

    def load_engine(folder: Path, card: ModelCard) -> RemoteEngine:
        return RemoteEngine(devices, settings.stalled_s, card)

    return _WithState(create_app(settings, load_engine=load_engine))


class _WithState:
    """An app whose requests get the lifespan's state, as from uvicorn, and not from Serve."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._state: dict[str, Any] = {}
        self.drain: Drain = app.state.drain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"] = self._state if scope["type"] == "lifespan" else dict(self._state)
        await self._app(scope, receive, send)


class _Ingress:
    """What a front's replica can besides HTTP.

    Args:
        devices: which the app finds by name; bound here, they are deployed with it.
    """

    app: _WithState  # Serve's wrapper has it

    def __init__(self, devices: DeploymentHandle) -> None: ...

    async def drain(self) -> None:
        """Finish what is in flight, and begin nothing: Serve would take the devices away first."""
        await self.app.drain.finish()


ENVIRONMENT = {"RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": str(64 * 2**20)}
"""Of every process of the service on the cluster, or Serve carries no tile above 4 MB."""

Devices = serve.deployment(
    logging_config={"enable_access_log": False},  # a line a tile
    ray_actor_options={"num_cpus": 1},
    autoscaling_config={"min_replicas": 1, "max_replicas": 8, "target_ongoing_requests": 2},
    # What a replica cannot begin soon is better kept where the next free one gets it.
    max_ongoing_requests=4,
    max_queued_requests=64,
    # That often the router looks for a free one; by itself it would wait for up to 0.5 s.
    request_router_config={
        "initial_backoff_s": 0.05,
        "backoff_multiplier": 1,
        "max_backoff_s": 0.05,
    },
)(Device)

Front = serve.deployment(
    name="Front",
    logging_config={"enable_access_log": False},  # the app's own line says more
    # The jobs' folder is on the head's disk; besides, what runs there is lost only with it.
    ray_actor_options={"num_cpus": 0, "resources": {"node:__internal_head__": 0.001}},
    # The app itself says who has to wait.
    max_ongoing_requests=1000,
    graceful_shutdown_timeout_s=40,  # SUPERRES_DRAIN_S, and what the last answers take
)(serve.ingress(_front)(_Ingress))

application = Front.bind(Devices.bind())
"""What serve.yaml runs, which says what a device is."""


def device_share(resources: Mapping[str, float], device: str) -> dict[str, float]:
    """What Ray keeps for each replica of :class:`Device`.

    Args:
        resources: of the cluster.
        device: ``SUPERRES_DEVICE``.
    """
    on_gpus = device != "cpu" and resources.get("GPU", 0) >= 1
    return {"num_cpus": 1, "num_gpus": 1} if on_gpus else {"num_cpus": 1}


def serve_on_cluster(host: str, port: int) -> None:
    """Serve from a cluster until SIGTERM or SIGINT, then let what is in flight finish.

    Which cluster that is, :func:`app.cluster.connect.connect` tells.
    """
    os.environ.update(ENVIRONMENT)
    connect(logs=True)
    # Before anything is served: the service may answer while Serve still starts it.
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):  # in the place of Ray's
        signal.signal(number, lambda *_: stop.set())
    serve.start(proxy_location=ProxyLocation.HeadOnly, http_options={"host": host, "port": port})
    share = device_share(ray.cluster_resources(), Settings().device)
    serve.run(Front.bind(Devices.options(ray_actor_options=share).bind()), name=APPLICATION)
    stop.wait()
    serve.get_app_handle(APPLICATION).drain.remote().result()
    serve.delete(APPLICATION)
    ray.shutdown()
