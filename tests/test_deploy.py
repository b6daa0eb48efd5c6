"""Alert rules and the dashboard ask for what the service really tells."""

import json
import re
import subprocess
import time
from pathlib import Path

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.needs import program
from tests.pictures import encoded
from tests.serving import free_port, wait_until

DEPLOY = Path(__file__).parents[1] / "deploy"
RULES = [
    rule
    for group in yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]
DASHBOARD = json.loads((DEPLOY / "grafana" / "dashboards" / "superres.json").read_text())
PANELS = {
    f"{panel['title']} {target['refId']}": target["expr"]
    for panel in DASHBOARD["panels"]
    for target in panel["targets"]
}
QUERIES = {rule["alert"]: rule["expr"] for rule in RULES} | PANELS


def promtool(*arguments: str) -> str:
    run = subprocess.run(
        [program("promtool"), *arguments], cwd=DEPLOY / "prometheus", capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def without_variables(query: str) -> str:
    """The dashboard's query, as Grafana would send it."""
    return query.replace("$__rate_interval", "1m").replace("$instance", ".*")


@pytest.fixture(scope="module")
def told(service: httpx.Client, chelsea) -> dict[str, set[str]]:
    """Each metric of a real scrape, and its labels."""
    picture = encoded(chelsea[:40, :60])
    assert service.post("/enhance?proof=true", content=picture).status_code == 200
    told: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(service.get("/metrics").text):
        for sample in family.samples:
            told.setdefault(sample.name, set()).update(sample.labels)
    return told


@pytest.mark.parametrize("name", QUERIES)
def test_every_metric_and_label_asked_for_is_told(told: dict[str, set[str]], name: str):
    asked = re.findall(r"\b((?:superres|process)_\w+)(?:\{([^}]*)\})?", QUERIES[name])
    assert asked
    for metric, selectors in asked:
        assert metric in told
        # Prometheus adds where it scraped.
        labels = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selectors)) - {"instance", "job"}
        assert labels <= told[metric], metric


def test_the_dashboard_is_the_one_that_is_provisioned():
    assert DASHBOARD["uid"] == "superres"
    source = yaml.safe_load(
        (DEPLOY / "grafana/provisioning/datasources/prometheus.yml").read_text()
    )["datasources"][0]
    compose = yaml.safe_load((DEPLOY.parent / "docker-compose.yml").read_text())["services"]
    assert source["url"] == "http://prometheus:9090"
    assert all(compose[name]["profiles"] == ["observe"] for name in ("prometheus", "grafana"))
    mounts = [volume.split(":") for volume in compose["grafana"]["volumes"]]
    provider = yaml.safe_load(
        (DEPLOY / "grafana/provisioning/dashboards/superres.yml").read_text()
    )["providers"][0]
    folders = {inside: DEPLOY.parent / outside for outside, inside, *_ in mounts}
    assert (folders[provider["options"]["path"]] / "superres.json").exists()
    for panel in DASHBOARD["panels"]:
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {source["uid"]}


def test_prometheus_looks_for_every_service_of_compose():
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    ((lookup,),) = (scrape["dns_sd_configs"] for scrape in config["scrape_configs"])
    compose = yaml.safe_load((DEPLOY.parent / "docker-compose.yml").read_text())["services"]
    serving = {name for name, service in compose.items() if ":8000" in str(service.get("ports"))}
    assert (set(lookup["names"]), lookup["port"]) == (serving, 8000)


def test_every_alert_has_a_test_in_which_it_fires_and_one_in_which_it_does_not():
    tests = yaml.safe_load((DEPLOY / "prometheus" / "alerts_test.yml").read_text())["tests"]
    cases = [case for test in tests for case in test["alert_rule_test"]]
    for quiet in (False, True):
        covered = {case["alertname"] for case in cases if (not case["exp_alerts"]) == quiet}
        assert covered == {rule["alert"] for rule in RULES}


def test_prometheus_takes_the_configuration_and_every_alert_fires_when_it_should():
    promtool("check", "config", "prometheus.yml")
    promtool("test", "rules", "alerts_test.yml")


def test_prometheus_understands_every_query_of_the_dashboard(tmp_path: Path):
    rules = [
        {"record": f"query:{i}", "expr": without_variables(query)}
        for i, query in enumerate(PANELS.values())
    ]
    file = tmp_path / "dashboard.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    promtool("check", "rules", str(file))


def results(prometheus: httpx.Client, name: str) -> list[object]:
    """What a Prometheus answers to an alert's or a panel's query."""
    answer = prometheus.get("/query", params={"query": without_variables(QUERIES[name])}).json()
    assert answer["status"] == "success", name
    return answer["data"]["result"]


def answers(address: str) -> bool:
    """Whether a server answers there, and with 200."""
    try:
        return httpx.get(address).status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_real_prometheus_has_an_answer_for_every_panel(
    service: httpx.Client, chelsea, tmp_path: Path
):
    """It scrapes the service under load by the shipped configuration, only more often."""
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(DEPLOY / "prometheus" / "alerts.yml")]
    (scrape,) = config["scrape_configs"]
    del scrape["dns_sd_configs"]  # which asks a name server for the containers of Compose
    scrape["static_configs"] = [{"targets": [f"127.0.0.1:{service.base_url.port}"]}]
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    port = free_port()
    process = subprocess.Popen(
        [
            program("prometheus"),
            f"--config.file={tmp_path / 'prometheus.yml'}",
            f"--storage.tsdb.path={tmp_path / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        picture = encoded(chelsea[:60, :80])
        end = time.monotonic() + 120
        with httpx.Client(base_url=f"http://127.0.0.1:{port}/api/v1") as prometheus:
            wait_until(lambda: answers(f"http://127.0.0.1:{port}/-/ready"))
            unanswered = set(PANELS)
            while unanswered and time.monotonic() < end:
                service.post("/enhance?proof=true", content=picture)
                unanswered = {name for name in PANELS if not results(prometheus, name)}
            assert not unanswered
            for alert in QUERIES.keys() - PANELS.keys():
                results(prometheus, alert)
            while True:
                rules = prometheus.get("/rules").json()["data"]["groups"][0]["rules"]
                health = {rule["health"] for rule in rules}
                if health == {"ok"} or time.monotonic() > end:
                    break
                time.sleep(0.1)
        assert health == {"ok"}
        assert {rule["state"] for rule in rules} == {"inactive"}
    finally:
        process.terminate()
        process.wait(30)
