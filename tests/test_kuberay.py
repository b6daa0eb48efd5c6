"""The files for Kubernetes are what KubeRay, Kubernetes and Ray Serve take."""

import shlex
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from typer.main import get_command

from app.settings import Settings
from superres.cli import cli
from tests.kuberay import SCHEMAS
from tests.lazy import Lazy

cluster = Lazy("app.cluster.serve")
schema = Lazy("ray.serve.schema")

FOLDER = Path(__file__).parents[1] / "deploy" / "kuberay"
FILES = {file.stem: yaml.safe_load(file.read_text()) for file in FOLDER.glob("*.yaml")}


def cluster_of(file: dict[str, Any]) -> dict[str, Any]:
    spec = file["spec"]
    return spec["rayClusterConfig"] if file["kind"] == "RayService" else spec["rayClusterSpec"]


def pods_of(file: dict[str, Any]) -> list[dict[str, Any]]:
    cluster = cluster_of(file)
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [group["template"]["spec"] for group in groups]


@pytest.mark.parametrize("name", FILES)
def test_kuberay_and_kubernetes_take_it(name: str):
    file = FILES[name]
    jsonschema.validate(file, SCHEMAS[file["kind"]])
    for pod in pods_of(file):
        whole = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one"}, "spec": pod}
        kubernetes_validate.validate(whole, "1.31", strict=True)
    assert cluster_of(file)["rayVersion"] == version("ray")


@pytest.mark.parametrize("name", FILES)
def test_its_settings_are_the_services_own(name: str):
    settings = {f"SUPERRES_{field.upper()}" for field in Settings.model_fields}
    for pod in pods_of(FILES[name]):
        (container,) = pod["containers"]
        assert {one["name"] for one in container.get("env", [])} <= settings


def test_its_serve_config_is_for_this_app():
    config = schema.ServeDeploySchema.model_validate(
        yaml.safe_load(FILES["rayservice"]["spec"]["serveConfigV2"])
    )
    (application,) = config.applications
    assert (application.name, application.import_path) == (
        cluster.APPLICATION,
        "app.cluster.serve:application",
    )
    assert application.runtime_env["env_vars"] == cluster.ENVIRONMENT
    (devices,) = application.deployments
    assert devices.name in (cluster.Devices.name, cluster.Front.name)
    # A worker pod is as large as a replica.
    (worker,) = FILES["rayservice"]["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    (container,) = worker["template"]["spec"]["containers"]
    assert float(container["resources"]["limits"]["cpu"]) == devices.ray_actor_options.num_cpus
    assert devices.autoscaling_config["max_replicas"] == worker["maxReplicas"]


def test_its_jobs_command_is_one_that_there_is():
    program, command, *arguments = shlex.split(FILES["rayjob"]["spec"]["entrypoint"])
    assert program == "superres"
    get_command(cli).commands[command].make_context(command, arguments)
