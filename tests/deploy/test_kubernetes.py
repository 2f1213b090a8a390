"""The manifests of deploy/kubernetes, rendered by kubectl and held against Kubernetes' schemas:
what docs/how-to/deploy.md applies."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import kubernetes_validate
import pytest
import yaml
from click.testing import CliRunner

from hostler.cli import app
from hostler.cli.reference import reference_page
from hostler.config import NodeConfig

FOLDER = Path(__file__).parents[2] / "deploy" / "kubernetes"
OLDEST, NEWEST = "1.29.0", "1.34.0"
"""Sidecars are on by default from 1.29 on."""
NODES = ("api", "lb", "runner")


@pytest.fixture(scope="module")
def manifests() -> list[dict[str, Any]]:
    done = subprocess.run(
        ["kubectl", "kustomize", str(FOLDER)], check=True, capture_output=True, text=True
    )
    return list(yaml.safe_load_all(done.stdout))


def one(manifests: list[dict[str, Any]], kind: str, node: str) -> dict[str, Any]:
    name = f"hostler-{node}"
    [found] = [m for m in manifests if (m["kind"], m["metadata"]["name"]) == (kind, name)]
    return found


def pod(manifests: list[dict[str, Any]], node: str) -> dict[str, Any]:
    spec: dict[str, Any] = one(manifests, "Deployment", node)["spec"]["template"]["spec"]
    return spec


def settings(manifests: list[dict[str, Any]], node: str) -> dict[str, str]:
    [config] = [m for m in manifests if m["kind"] == "ConfigMap"]
    [container] = pod(manifests, node)["containers"]
    own = {entry["name"]: entry["value"] for entry in container.get("env", [])}
    return {**config["data"], **own}


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_all_are_what_kubernetes_takes(manifests: list[dict[str, Any]], version: str) -> None:
    kinds = [manifest["kind"] for manifest in manifests]
    assert kinds.count("Deployment") == kinds.count("PodDisruptionBudget") == len(NODES)
    for manifest in manifests:
        kubernetes_validate.validate(manifest, version, strict=True)


def test_the_schemas_are_strict(manifests: list[dict[str, Any]]) -> None:
    wrong = one(manifests, "Service", "lb") | {"sepc": {}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, NEWEST, strict=True)


@pytest.mark.parametrize("node", NODES)
def test_services_budgets_and_deployments_select_the_pods(
    manifests: list[dict[str, Any]], node: str
) -> None:
    deployment = one(manifests, "Deployment", node)["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    assert deployment["selector"]["matchLabels"] == labels
    assert one(manifests, "Service", node)["spec"]["selector"] == labels
    budget = one(manifests, "PodDisruptionBudget", node)["spec"]
    assert budget["selector"]["matchLabels"] == labels
    assert budget["maxUnavailable"] < deployment["replicas"]


@pytest.mark.parametrize("node", NODES)
def test_ports_by_name_are_there(manifests: list[dict[str, Any]], node: str) -> None:
    [container] = pod(manifests, node)["containers"]
    ports = {port["name"] for port in container["ports"]}
    for port in one(manifests, "Service", node)["spec"]["ports"]:
        assert port["targetPort"] in ports
    for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
        assert container[probe]["httpGet"]["port"] in ports


@pytest.mark.parametrize("node", NODES)
def test_a_pod_has_the_time_that_its_drain_takes(
    manifests: list[dict[str, Any]], node: str
) -> None:
    grace = int(settings(manifests, node)["FN_DRAIN_GRACE_MSECS"]) / 1000
    [container] = pod(manifests, node)["containers"]
    program, hook = container["lifecycle"]["preStop"]["exec"]["command"]
    assert program == "sleep"
    assert pod(manifests, node)["terminationGracePeriodSeconds"] > grace + float(hook)


@pytest.mark.parametrize("node", NODES)
def test_a_node_reads_all_settings_that_it_gets(manifests: list[dict[str, Any]], node: str) -> None:
    page = reference_page(app)
    for name, value in settings(manifests, node).items():
        assert name == "DOCKER_HOST" or f"| `{name.removesuffix('_FILE')}` |" in page
        assert isinstance(value, str)
    [command] = pod(manifests, node)["containers"][0]["args"]
    assert CliRunner().invoke(app, [command, "--help"]).exit_code == 0


def test_load_balancers_follow_the_headless_service(manifests: list[dict[str, Any]]) -> None:
    service = one(manifests, "Service", "runner")
    assert service["spec"]["clusterIP"] == "None"
    [port] = service["spec"]["ports"]
    given = settings(manifests, "lb")
    config = NodeConfig.from_env({k: v for k, v in given.items() if not k.endswith("_FILE")})
    assert list(config.runner_addresses) == [f"dns://{service['metadata']['name']}:{port['port']}"]
    api = one(manifests, "Service", "api")
    assert config.runner_api_url == f"http://{api['metadata']['name']}"
    assert [entry["port"] for entry in api["spec"]["ports"]] == [80]


@pytest.mark.parametrize("node", NODES)
def test_each_node_has_the_token_of_the_api(manifests: list[dict[str, Any]], node: str) -> None:
    spec = pod(manifests, node)
    [container] = spec["containers"]
    secrets = {v["name"]: v["secret"]["secretName"] for v in spec["volumes"] if "secret" in v}
    places = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    folder, _, file = settings(manifests, node)["FN_API_TOKEN_FILE"].rpartition("/")
    assert (secrets[places[folder]], file) == ("hostler-token", "token")


def test_the_api_takes_the_names_of_its_service_only(manifests: list[dict[str, Any]]) -> None:
    given = settings(manifests, "api")
    url = urlsplit(settings(manifests, "lb")["FN_RUNNER_API_URL"])
    assert url.hostname in given["FN_ALLOWED_HOSTS"].split(",")


def test_the_engine_sees_the_sockets_where_the_runner_does(
    manifests: list[dict[str, Any]],
) -> None:
    spec = pod(manifests, "runner")
    [engine], [runner] = spec["initContainers"], spec["containers"]
    mounts = [
        {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        for container in (engine, runner)
    ]
    path = settings(manifests, "runner")["FN_IOFS_PATH"]
    assert mounts[0][path] == mounts[1][path] == "run"
    assert f"--host={settings(manifests, 'runner')['DOCKER_HOST']}" in engine["args"]
    assert engine["restartPolicy"] == "Always"  # a sidecar: it ends after the runner


@pytest.mark.parametrize("node", ["api", "lb"])
def test_nodes_without_an_engine_have_no_rights(manifests: list[dict[str, Any]], node: str) -> None:
    spec = pod(manifests, node)
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["containers"][0]["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
