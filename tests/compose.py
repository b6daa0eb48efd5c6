"""A clone of this project on a Docker engine: its images, and docker-compose.yml."""

import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import httpx

from tests.serving import free_port, wait_until

REPOSITORY = Path(__file__).parents[1]


def engine_missing() -> str:
    """Why there is no Docker engine with Compose; empty if there is one."""
    if shutil.which("docker") is None:
        return "docker is not installed"
    for command in (["docker", "info"], ["docker", "compose", "version"]):
        run = subprocess.run(command, capture_output=True, text=True)
        if run.returncode:
            return f"{' '.join(command)}: {run.stderr.strip()}"
    return ""


def clone(folder: Path) -> Path:
    """A clone of this repository, with the changes of tracked files."""

    def git(*arguments: str) -> str:
        run = subprocess.run(["git", *arguments], capture_output=True, text=True, check=True)
        return run.stdout.strip()

    here = ("-C", str(REPOSITORY))
    commit = git(*here, "stash", "create") or git(*here, "rev-parse", "HEAD")
    git("clone", "--quiet", "--shared", "--no-checkout", str(REPOSITORY), str(folder))
    git("-C", str(folder), "checkout", "--quiet", "-b", "tested", commit)
    return folder


class Project:
    """A clone as a project of Compose, with a name and a port of its own.

    Args:
        folder: the clone.
        settings: variables of docker-compose.yml.
    """

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder = folder
        port = free_port()
        self.environment = os.environ | settings | {"SUPERRES_PORT": str(port)}
        self.port = port
        self.name = f"superres-test-{port}"
        self.base_url = f"http://127.0.0.1:{port}"

    def run(
        self, *command: str, check: bool = True, stdin: BinaryIO | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the clone's folder."""
        run = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            stdin=stdin,
            capture_output=True,
            text=True,
        )
        assert not (check and run.returncode), run.stdout + run.stderr
        return run

    def compose(self, *arguments: str, check: bool = True) -> str:
        """Run ``docker compose``, with every profile: what it prints."""
        profiles = [f"--profile={name}" for name in ("cluster", "train")]
        whole = ("docker", "compose", "--project-name", self.name, *profiles, *arguments)
        return self.run(*whole, check=check).stdout

    def docker(self, *arguments: str, check: bool = True) -> str:
        """Run ``docker``: what it prints."""
        return self.run("docker", *arguments, check=check).stdout.strip()

    def fill_volume(self, volume: str, files: Mapping[str, bytes]) -> None:
        """Make a volume of jobs with these files, as the user of the images has them."""
        with tempfile.TemporaryFile() as archive:
            with tarfile.open(fileobj=archive, mode="w") as tar:
                for name, content in files.items():
                    entry = tarfile.TarInfo(name)
                    entry.size, entry.mode = len(content), 0o600
                    entry.uid = entry.gid = 10001
                    tar.addfile(entry, io.BytesIO(content))
            archive.seek(0)
            container = self.docker(
                "create", f"--volume={volume}:/var/lib/superres", "superres:slim"
            )
            self.run("docker", "cp", "-", f"{container}:/var/lib/superres", stdin=archive)
            self.docker("rm", container)

    def containers(self, service: str) -> list[str]:
        """Ids of the containers of a service, also of those that ended."""
        return self.compose("ps", "--all", "--quiet", service).split()

    def inspect(self, container: str) -> dict[str, Any]:
        return json.loads(self.docker("inspect", container))[0]

    def inside(self, service: str, *command: str) -> str:
        """Run a command in the container of a service: what it prints."""
        return self.compose("exec", "-T", service, *command).strip()

    @contextmanager
    def up(self, service: str, *others: str) -> Iterator[httpx.Client]:
        """Start services; when the first is healthy, a client of it. At the end, remove them."""
        try:
            self.compose("up", "--detach", "--no-build", service, *others)
            wait_until(lambda: self.is_healthy(service), seconds=300)
            limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
            with httpx.Client(base_url=self.base_url, timeout=300, limits=limits) as client:
                yield client
        finally:
            self.compose("down", "--volumes", "--timeout", "20", check=False)

    def is_healthy(self, service: str) -> bool:
        """Whether the health check of a service passes."""
        (container,) = self.containers(service)
        state = self.inspect(container)["State"]
        assert state["Status"] in ("running", "restarting"), self.compose("logs", service)
        return bool(state["Health"]["Status"] == "healthy")
