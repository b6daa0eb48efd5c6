"""Ray is only where it is asked for; what needs a running cluster is in tests/integration."""

import os
import re
import subprocess
import sys
from pathlib import Path
from pkgutil import resolve_name

import pytest
import yaml

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.parametrize("lock", ["cpu", "gpu"])
def test_the_plain_install_has_no_ray(lock: str):
    text = (REPOSITORY / "requirements" / f"{lock}.lock").read_text()
    packages = set(re.findall(r"^([a-z0-9-]+)==", text, flags=re.MULTILINE))
    assert "fastapi" in packages
    assert not packages & {"fsspec", "ray", "universal-pathlib"}


@pytest.mark.slow
def test_the_plain_service_does_without_ray_and_a_cluster_is_refused_with_what_to_install(
    tmp_path: Path,
):
    """In a process of its own, in which nothing of Ray has been imported before."""
    script = """
import sys
sys.modules.update(dict.fromkeys(("fsspec", "ray", "upath")))
from superres.cli import main
from app.main import create_app
create_app()
print("made")
sys.argv[1:] = ["serve", "--cluster"]
main()
"""
    run = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env=os.environ | {"SUPERRES_JOBS": str(tmp_path)},
    )
    assert (run.returncode, run.stdout) == (1, "made\n"), run.stderr
    assert run.stderr.startswith("error: --cluster needs the extra cluster")
    assert "Traceback" not in run.stderr


def test_serve_yaml_is_what_ray_serve_takes_and_names_what_there_is():
    from ray.serve.schema import ServeDeploySchema

    from app.cluster.serve import APPLICATION, ENVIRONMENT, Devices, Front
    from app.cluster.serve import application as served
    from app.settings import Settings

    config = ServeDeploySchema.model_validate(
        yaml.safe_load((REPOSITORY / "serve.yaml").read_text())
    )
    (application,) = config.applications
    assert application.name == APPLICATION
    # The second is the path in older copies of the file.
    for path in (application.import_path, "app.cluster:application"):
        assert resolve_name(path) is served
    assert {one.name for one in application.deployments} <= {Devices.name, Front.name}
    settings = {f"SUPERRES_{name.upper()}" for name in Settings.model_fields}
    variables = application.runtime_env["env_vars"]
    assert ENVIRONMENT.items() <= variables.items()
    assert variables.keys() <= settings | ENVIRONMENT.keys()


def test_no_secret_is_among_the_variables_of_the_clusters_processes(monkeypatch):
    """Ray shows them on its dashboard, and writes them to its logs."""
    ray = pytest.importorskip("ray", reason="the extra cluster is not installed")
    from app.cluster.connect import connect, secret_settings

    secrets = {
        "SUPERRES_API_KEYS": "alice:secret-hash",
        "SUPERRES_JOBS_DATABASE": "postgresql://superres:secret-password@host/jobs",
    }
    public = {
        "SUPERRES_MODELS": "/models",
        "SUPERRES_PRECISION": "float32",
        "RAY_SERVE_X": "1",
    }
    # The second is a setting, too, by pydantic's rules.
    others = {
        "SUPERRES_KEY": "superres_secret",
        "superres_api_keys": "secret",
        "PASSWORD": "secret",
    }
    initialized = {}
    monkeypatch.setattr(ray, "init", lambda **options: initialized.update(options))
    for name in [name for name in os.environ if name.startswith(("SUPERRES_", "RAY_SERVE_"))]:
        monkeypatch.delenv(name)
    for name, value in (secrets | public | others).items():
        monkeypatch.setenv(name, value)
    connect(logs=False)
    assert initialized["runtime_env"]["env_vars"] == public
    given = secret_settings(os.environ)
    assert "secret" not in repr(given)
    assert given.keys() == secrets.keys() | {"superres_api_keys"}


@pytest.mark.parametrize(
    ("gpus", "device", "each"), [(2, "auto", 1), (2, "cpu", 0), (0, "auto", 0)]
)
def test_a_replica_has_a_gpu_of_its_own_where_there_are_any(gpus: int, device: str, each: int):
    from app.cluster.serve import device_share

    share = device_share({"CPU": 8.0, "GPU": float(gpus)}, device)
    assert share["num_cpus"] == 1
    assert share.get("num_gpus", 0) == each
