"""The thread that answers all requests is never kept waiting by an import."""

import subprocess
import sys
from textwrap import dedent

from superres.models.registry import DEFAULT_MODELS

SCRIPT = dedent(
    """
    import sys, threading
    from pathlib import Path
    import httpx
    from app.main import create_app
    from app.settings import Settings
    from superres.models.registry import read_cards
    from tests.engines import SharpenEngine
    from tests.pictures import encoded, plain
    from tests.serving import run, wait_until_ready
    import numpy as np

    folder, jobs = sys.argv[1:]
    cards = [card for card in read_cards(Path(folder)) if card.family == "srcnn"]
    engines = {card.name: SharpenEngine(card.geometry) for card in cards}
    app = create_app(Settings(models=folder, jobs=jobs, device="cpu"), engines)
    found, loop = {}, []

    def watch(event, arguments):
        if event == "import" and loop and threading.get_ident() == loop[0]:
            found.setdefault(arguments[0], now[0])

    sys.addaudithook(watch)
    now = ["start"]
    with run(app) as (server, url), httpx.Client(base_url=url, timeout=60) as client:
        wait_until_ready(client)
        # uvicorn and FastAPI have a few small ones of their own for the first request of a kind
        client.get("/healthz"), client.post("/enhance?scale=9"), client.get("/metrics")
        loop.extend(one.ident for one in threading.enumerate() if one.name.endswith("(run)"))
        assert len(loop) == 1, threading.enumerate()
        picture = encoded(np.zeros((120, 130, 3), np.uint8))
        for now[0], call in {
            "compare": lambda: client.get("/compare"),
            "compare a picture": lambda: client.post("/compare", content=picture),
            "strip": lambda: client.get("/compare", headers={"Accept": "image/png"}),
            "page": lambda: client.get("/compare", headers={"Accept": "text/html"}),
            "sample": lambda: client.get("/samples/rocket"),
            "enhance": lambda: client.post("/enhance", content=plain()),
            "proof": lambda: client.post("/enhance?proof=true&icc=srgb", content=picture),
            "form": lambda: client.post("/enhance", files={"file": picture}, data={"scale": "2"}),
            "job": lambda: client.post(
                "/enhance", content=picture, headers={"Prefer": "respond-async"}
            ),
        }.items():
            assert call().is_success, now
        print({name: at for name, at in found.items() if name not in sys.builtin_module_names})
    """
)


def test_no_request_imports_a_module_on_the_event_loop(tmp_path):
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, DEFAULT_MODELS, tmp_path],
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "{}"
