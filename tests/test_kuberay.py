"""The files for Kubernetes are what KubeRay, Kubernetes and Ray Serve take."""

import re
import shlex
import shutil
import subprocess
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
FILES = {
    name: yaml.safe_load((FOLDER / f"{name}.yaml").read_text()) for name in ("rayservice", "rayjob")
}
"""Ray's resources."""
OTHERS = [
    resource
    for file in sorted(FOLDER.parent.glob("kube*/*.yaml"))
    if file.stem not in (*FILES, "kustomization")
    for resource in yaml.safe_load_all(file.read_text())
]
"""Resources of Kubernetes, with and without Ray."""


def cluster_of(file: dict[str, Any]) -> dict[str, Any]:
    spec = file["spec"]
    return spec["rayClusterConfig"] if file["kind"] == "RayService" else spec["rayClusterSpec"]


def templates_of(file: dict[str, Any]) -> list[dict[str, Any]]:
    if file["kind"] == "Deployment":
        return [file["spec"]["template"]]
    cluster = cluster_of(file)
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    submitter = file["spec"].get("submitterPodTemplate")
    return [group["template"] for group in groups] + ([submitter] if submitter else [])


def pods_of(file: dict[str, Any]) -> list[dict[str, Any]]:
    return [template["spec"] for template in templates_of(file)]


(DEPLOYMENT,) = (one for one in OTHERS if one["kind"] == "Deployment")
ALL_PODS = [pod for file in (*FILES.values(), DEPLOYMENT) for pod in pods_of(file)]


@pytest.mark.slow
@pytest.mark.parametrize("resource", OTHERS, ids=lambda one: f"{one['kind']}")
def test_kubernetes_takes_it(resource: dict[str, Any]):
    if resource["kind"] in SCHEMAS:
        jsonschema.validate(resource, SCHEMAS[resource["kind"]])
    else:
        kubernetes_validate.validate(resource, "1.31", strict=True)


@pytest.mark.parametrize("pod", ALL_PODS, ids=lambda pod: pod["containers"][0]["name"])
def test_every_pod_fits_the_restricted_standard(pod: dict[str, Any]):
    """Kubernetes' Pod Security Standard ``restricted``, and a read-only root file system."""
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["runAsUser"] == 10001
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not pod.keys() & {"hostNetwork", "hostPID", "hostIPC"}
    assert all(volume.keys() - {"name"} == {"emptyDir"} for volume in pod["volumes"])
    names = {volume["name"] for volume in pod["volumes"]}
    for container in pod["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert {mount["name"] for mount in container["volumeMounts"]} == names
        assert re.fullmatch("superres:(cpu|cluster)", container["image"])


def test_every_selector_selects_a_pod_or_the_service():
    templates = [one for file in (*FILES.values(), DEPLOYMENT) for one in templates_of(file)]
    labels = [template["metadata"]["labels"] for template in templates]
    services = [one for one in OTHERS if one["kind"] == "Service"]
    for resource in OTHERS:
        spec, among = resource["spec"], labels
        selector = spec.get("selector") or spec.get("podSelector")
        if resource["kind"] == "ServiceMonitor":
            among = [service["metadata"]["labels"] for service in services]
        if selector:
            wanted = dict(selector.get("matchLabels", selector))
            wanted.pop("ray.io/serve", None)  # KubeRay's
            assert any(wanted.items() <= one.items() for one in among), resource
    target = next(one for one in OTHERS if one["kind"] == "HorizontalPodAutoscaler")
    assert target["spec"]["scaleTargetRef"]["name"] == DEPLOYMENT["metadata"]["name"]
    for service in services:
        ports = [port for pod in ALL_PODS for port in pod["containers"][0].get("ports", ())]
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= {
            port["name"] for port in ports if port["containerPort"] == 8000
        }


def test_only_the_head_is_asked_for_a_serve_proxy():
    """KubeRay's own readiness probe asks for one on workers, too, where `HeadOnly` runs none."""
    assert "proxy_location: HeadOnly" in FILES["rayservice"]["spec"]["serveConfigV2"]
    _head, worker = pods_of(FILES["rayservice"])
    probe = " ".join(worker["containers"][0]["readinessProbe"]["exec"]["command"])
    assert "local_raylet_healthz" in probe
    assert ":8000" not in probe


@pytest.mark.slow
def test_kustomize_renders_the_files():
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    folder = FOLDER.parent / "kubernetes"
    run = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    rendered = {one["kind"]: one for one in yaml.safe_load_all(run.stdout)}
    files = [yaml.safe_load(file.read_text()) for file in folder.glob("*.yaml")]
    assert rendered == {one["kind"]: one for one in files if one["kind"] != "Kustomization"}


@pytest.mark.parametrize("name", FILES)
def test_kuberay_and_kubernetes_take_it(name: str):
    file = FILES[name]
    jsonschema.validate(file, SCHEMAS[file["kind"]])
    for pod in pods_of(file):
        whole = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one"}, "spec": pod}
        kubernetes_validate.validate(whole, "1.31", strict=True)
    assert cluster_of(file)["rayVersion"] == version("ray")


@pytest.mark.parametrize("name", [*FILES, "deployment"])
def test_its_settings_are_the_services_own(name: str):
    settings = {f"SUPERRES_{field.upper()}" for field in Settings.model_fields}
    for pod in pods_of(FILES.get(name, DEPLOYMENT)):
        (container,) = pod["containers"]
        names = {one["name"] for one in container.get("env", [])}
        assert names <= settings | {"TF_NUM_INTRAOP_THREADS"}


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
