"""The deployment files: valid by their schemas, and all that they name - commands, keys, paths, metrics - is there."""

from __future__ import annotations

import argparse
import fnmatch
import importlib
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from router_ml.cli import COMMANDS
from router_ml.config import load_config
from router_ml.store import open_store
from router_ml_serving.app import create_app
from router_ml_serving.auth import check_exposure
from router_ml_serving.golden.items import read_golden
from router_ml_serving.settings import ServingSettings, golden_settings, serving_settings
from router_ml_serving.telemetry import Telemetry

BIN = Path(sys.executable).parent
DOCKERFILES = ("serving/Dockerfile", "training/Dockerfile")
HOSTS_OPTIONS = {"--config", "--json"}
# What programs of others read.
FOREIGN_VARIABLES = {
    "OMP_NUM_THREADS",
    "PGPASSWORD",
    "POSTGRES_USER",
    "POSTGRES_DB",
    "POSTGRES_PASSWORD",
    "REDIS_PASSWORD",
}


def run(program: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [str(BIN / program), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.fixture
def compose(root: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((root / "serving" / "compose.yaml").read_text(encoding="utf-8"))
    return found


@pytest.fixture
def manifests(root: Path) -> list[dict[str, Any]]:
    return [one for path in manifest_files(root) for one in yaml.safe_load_all(path.read_text(encoding="utf-8"))]


@pytest.fixture
def containers(manifests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every container of every workload."""
    pods = [pod for one in manifests if (pod := pod_of(one))]
    return [container for pod in pods for container in (*pod.get("initContainers", ()), *pod["containers"])]


@pytest.fixture
def router_pod(manifests: list[dict[str, Any]]) -> dict[str, Any]:
    (deployment,) = [one for one in manifests if one["kind"] == "Deployment"]
    return pod_of(deployment)


def manifest_files(root: Path) -> list[Path]:
    # The real secret of whoever deploys from here is nobody else's.
    found = (root / "serving" / "kubernetes").glob("*.yaml*")
    return sorted(path for path in found if path.name != "secret.yaml")


def pod_of(manifest: Mapping[str, Any]) -> dict[str, Any]:
    spec = manifest.get("spec", {})
    spec = spec.get("jobTemplate", {}).get("spec", spec)
    found: dict[str, Any] = spec.get("template", {}).get("spec", {})
    return found


# The schemas


@pytest.mark.parametrize("name", DOCKERFILES)
def test_the_linter_finds_nothing_in_a_dockerfile(name: str, root: Path) -> None:
    found = run("hadolint", root / name)
    assert (found.returncode, found.stdout) == (0, "")


def test_the_compose_file_is_valid(root: Path) -> None:
    found = run("check-jsonschema", "--builtin-schema", "vendor.compose-spec", root / "serving" / "compose.yaml")
    assert found.returncode == 0, found.stdout


def test_every_manifest_is_valid(root: Path) -> None:
    found = run("kubernetes-validate", "--strict", *manifest_files(root))
    assert found.returncode == 0, found.stdout + found.stderr
    assert len(manifest_files(root)) > 5


# What is built


@pytest.mark.parametrize("name", DOCKERFILES)
@pytest.mark.parametrize("lock", ["", "deploy"])
def test_what_an_image_copies_is_there_and_not_ignored(
    name: str, lock: str, root: Path, instructions: Callable[..., list[tuple[str, str]]]
) -> None:
    given = {"LOCK": lock} if lock and name.startswith("serving") else {}
    copied = [rest.split() for word, rest in instructions(root / name, given) if word == "COPY"]
    sources = [source for words in copied if not words[0].startswith("--from") for source in words[:-1]]
    assert "pyproject.toml" in sources
    assert [source for source in sources if not (root / source).exists()] == []
    passes = (root / ".dockerignore").read_text(encoding="utf-8").splitlines()
    let_through = [line[1:] for line in passes if line.startswith("!")]
    assert passes[1] == "*"
    assert [source for source in sources if not any(fnmatch.fnmatch(source, one) for one in let_through)] == []


@pytest.mark.parametrize("name", DOCKERFILES)
def test_an_image_runs_as_nobody_in_particular(
    name: str, root: Path, instructions: Callable[..., list[tuple[str, str]]], compose: dict[str, Any]
) -> None:
    found = instructions(root / name, {})
    last = max(i for i, (word, _) in enumerate(found) if word == "FROM")
    assert [rest for word, rest in found[last:] if word == "USER"] == ["10001:10001"]
    # Bundles are written by one image and read by the other.
    (made,) = [rest for word, rest in found[last:] if word == "RUN" and "useradd" in rest]
    assert "/var/lib/router-ml/models" in made
    assert any("/var/lib/router-ml/models" in volume for volume in compose["services"]["router"]["volumes"])


@pytest.mark.parametrize("name", DOCKERFILES)
def test_everything_that_is_installed_is_locked_by_hash(
    name: str, root: Path, instructions: Callable[..., list[tuple[str, str]]]
) -> None:
    installs = [rest for word, rest in instructions(root / name, {}) if word == "RUN" and "install --no-cache" in rest]
    assert len(installs) == 3
    assert all("--require-hashes" in rest or "--no-index /wheel/" in rest for rest in installs)


@pytest.mark.parametrize("name", ["build", "deploy", "training"])
def test_a_lock_of_an_image_has_the_versions_that_are_tested(name: str, root: Path) -> None:
    pins = {
        lock: set(
            re.findall(r"^([\w.\[\]-]+==\S+)", (root / "requirements" / f"{lock}.lock").read_text(), re.MULTILINE)
        )
        for lock in ("all", name)
    }
    assert pins[name]
    assert pins[name] - pins["all"] == set()


def test_no_image_floats(
    root: Path, compose: dict[str, Any], containers: list[dict[str, Any]], instructions: Callable[..., Any]
) -> None:
    bases = [rest.split()[0] for name in DOCKERFILES for word, rest in instructions(root / name, {}) if word == "FROM"]
    images = [*bases, *(one["image"] for one in (*compose["services"].values(), *containers))]
    assert len(images) > 8
    assert [image for image in images if not re.search(r":v?\d+\.\d+", image)] == []


# What is run


def commands(root: Path, compose: Mapping[str, Any], containers: list[Mapping[str, Any]]) -> Iterator[list[str]]:
    """Yield every command line of `router-ml`."""
    for name in DOCKERFILES:
        text = (root / name).read_text(encoding="utf-8")
        yield json.loads(re.findall(r"^CMD (\[.*\])$", text, re.MULTILINE)[-1])
    for service in compose["services"].values():
        if service["image"].startswith("router-ml") and "entrypoint" not in service and "command" in service:
            yield service["command"]
    for container in containers:
        scripts = container["args"] if container.get("command") == ["sh", "-c"] else ()
        lines = [
            line.partition("||")[0].split()[1:] for line in "\n".join(scripts).splitlines() if "router-ml " in line
        ]
        yield from lines or [container["args"]]


def test_every_command_is_one_of_ours(root: Path, compose: dict[str, Any], containers: list[dict[str, Any]]) -> None:
    seen = set()
    for name, *rest in commands(root, compose, containers):
        parser = argparse.ArgumentParser(exit_on_error=False)
        parser.add_argument("--config")
        parser.add_argument("--json", action="store_true")
        importlib.import_module(COMMANDS[name].module).add_arguments(parser)
        parser.parse_args(rest)
        seen.add(name)
    assert seen == {"serve", "retrain", "drift", "golden", "sync"}


def configurations(root: Path, folder: Path) -> dict[str, Path]:
    """Return where each configuration is, that of Kubernetes written to a folder."""
    (mapped,) = yaml.safe_load_all((root / "serving" / "kubernetes" / "config.yaml").read_text(encoding="utf-8"))
    path = folder / "router.toml"
    path.write_text(mapped["data"]["router.toml"], encoding="utf-8")
    return {"compose": root / "serving" / "compose" / "router.toml", "kubernetes": path}


@pytest.mark.parametrize("where", ["compose", "kubernetes"])
def test_the_configuration_is_right_and_lets_nobody_in_without_a_key(where: str, root: Path, tmp_path: Path) -> None:
    path = configurations(root, tmp_path)[where]
    found = run("router-ml", "config", "check", path)
    assert found.returncode == 0, found.stdout + found.stderr
    settings = serving_settings(load_config(path, {}))
    check_exposure(settings.model_copy(update={"host": "0.0.0.0"}))
    assert settings.upstream_hosts


def test_both_configurations_say_the_same(root: Path, tmp_path: Path) -> None:
    # But for the bucket: on one machine a volume is enough.
    compose, kubernetes = (load_config(path, {}) for path in configurations(root, tmp_path).values())
    assert kubernetes.objects.models
    other = {"source": "", "objects": compose.objects}
    assert compose.model_copy(update=other) == kubernetes.model_copy(update=other)
    written = yaml.safe_load((root / "serving" / "kubernetes" / "config.yaml").read_text(encoding="utf-8"))["data"]
    assert written["golden.jsonl"] == (root / "serving" / "compose" / "golden.jsonl").read_text(encoding="utf-8")


def test_the_golden_set_can_be_run(root: Path) -> None:
    path = root / "serving" / "compose" / "golden.jsonl"
    config = load_config(root / "serving" / "compose" / "router.toml", {})
    assert config.ladder is not None
    assert golden_settings(config).judge in config.ladder.names
    assert golden_settings(config).file == Path("/etc/router-ml", path.name)
    assert len(read_golden(path).items) == 2


def variables(config: Path) -> set[str]:
    """Return the environment variables that a configuration names."""
    text, objects = config.read_text(encoding="utf-8"), load_config(config, {}).objects
    named = {*re.findall(r'^\w+_env = "(\w+)"', text, re.MULTILINE), ServingSettings().admin_key_env}
    return named | ({objects.access_key_env, objects.secret_key_env} if objects.models else set())


def test_every_variable_of_compose_is_known_and_secrets_come_from_outside(root: Path, compose: dict[str, Any]) -> None:
    text = (root / "serving" / "compose.yaml").read_text(encoding="utf-8")
    named = {name for service in compose["services"].values() for name in service.get("environment", ())}
    wanted = variables(root / "serving" / "compose" / "router.toml")
    assert named - FOREIGN_VARIABLES == wanted
    # Nothing is started with an empty secret, and the example holds none.
    asked = set(re.findall(r"\$\{(\w+)", text))
    assert asked == set(re.findall(r"\$\{(\w+):\?", text))
    example = (root / "serving" / "compose" / "env.example").read_text(encoding="utf-8")
    assert dict(re.findall(r"^(\w+)=(.*)$", example, re.MULTILINE)) == dict.fromkeys(asked, "")


def test_the_secret_of_kubernetes_has_every_variable(
    root: Path, tmp_path: Path, manifests: list[dict[str, Any]], containers: list[dict[str, Any]]
) -> None:
    (secret,) = [one for one in manifests if one["kind"] == "Secret"]
    held = set(secret["stringData"])
    assert held - FOREIGN_VARIABLES == variables(configurations(root, tmp_path)["kubernetes"])
    assert set(secret["stringData"].values()) == {"change me"}
    given = [entry for container in containers for entry in container.get("env", ())]
    assert {entry["valueFrom"]["secretKeyRef"]["key"] for entry in given if "valueFrom" in entry} <= held
    assert {entry["name"] for entry in given if "value" in entry} <= FOREIGN_VARIABLES


def test_variables_of_the_images_are_keys_of_the_configuration(
    root: Path, instructions: Callable[..., list[tuple[str, str]]]
) -> None:
    for name in DOCKERFILES:
        text = " ".join(rest for word, rest in instructions(root / name, {}) if word == "ENV")
        environ = dict(re.findall(r"(ROUTER_ML_\w+)=(\S+)", text))
        serving_settings(load_config(None, environ))


# What is probed, watched, and ended


def endpoints(folder: Path) -> set[str]:
    config = load_config(None, {})
    with open_store(f"sqlite:///{folder / 'events.db'}") as store:
        app = create_app(serving_settings(config), config, store=store, environ={})
    return {route.path for route in app.router.routes}


def test_probes_ask_endpoints_that_need_no_key(root: Path, tmp_path: Path, router_pod: dict[str, Any]) -> None:
    (container,) = router_pod["containers"]
    probed = {name: container[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "liveness", "readiness")}
    assert probed == {"startup": "/healthz", "liveness": "/healthz", "readiness": "/readyz"}
    healthcheck = re.findall(r"http://127.0.0.1:8080(/\w+)", (root / "serving" / "Dockerfile").read_text())
    assert {*probed.values(), *healthcheck} <= endpoints(tmp_path)
    assert healthcheck
    assert container["ports"] == [{"name": "http", "containerPort": 8080}]
    assert container["args"][-1] == "8080"


def test_a_replica_has_the_champion_before_it_serves_and_follows_it(router_pod: dict[str, Any]) -> None:
    first, then = router_pod["initContainers"]
    assert (first["args"][:2], first.get("restartPolicy")) == (["sync", "pull"], None)
    assert (then["args"][:2], then.get("restartPolicy")) == (["sync", "watch"], "Always")
    assert first["volumeMounts"] == then["volumeMounts"] == router_pod["containers"][0]["volumeMounts"]


def test_a_replica_has_the_time_to_finish(
    root: Path, tmp_path: Path, router_pod: dict[str, Any], compose: dict[str, Any]
) -> None:
    drain_s = {where: _drain_s(path) for where, path in configurations(root, tmp_path).items()}
    assert int(compose["services"]["router"]["stop_grace_period"].removesuffix("s")) >= drain_s["compose"] + 10
    (container,) = router_pod["containers"]
    pause_s = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert router_pod["terminationGracePeriodSeconds"] >= pause_s + drain_s["kubernetes"] + 10
    # Long enough for a failed readiness probe, or a removed endpoint, to be known everywhere.
    assert pause_s >= 5


def _drain_s(config: Path) -> float:
    return serving_settings(load_config(config, {})).drain_s


def test_a_container_may_do_nothing_that_it_need_not(
    manifests: list[dict[str, Any]], containers: list[dict[str, Any]]
) -> None:
    for pod in filter(None, map(pod_of, manifests)):
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["automountServiceAccountToken"] is False
        declared = {volume["name"] for volume in pod["volumes"]}
        every = (*pod.get("initContainers", ()), *pod["containers"])
        mounted = [mount["name"] for one in every for mount in one["volumeMounts"]]
        assert declared == set(mounted)
    for container in containers:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert "memory" in container["resources"]["limits"]


def test_selectors_find_the_pods(manifests: list[dict[str, Any]], router_pod: dict[str, Any]) -> None:
    by_kind = {one["kind"]: one["spec"] for one in manifests if one["kind"] != "CronJob" and "spec" in one}
    labels = by_kind["Deployment"]["template"]["metadata"]["labels"]
    assert by_kind["Deployment"]["selector"]["matchLabels"] == labels
    assert by_kind["Service"]["selector"] == labels
    assert by_kind["PodDisruptionBudget"]["selector"]["matchLabels"] == labels
    assert by_kind["HorizontalPodAutoscaler"]["scaleTargetRef"]["name"] == "router"
    claims = {one["metadata"]["name"] for one in manifests if one["kind"] == "PersistentVolumeClaim"}
    wanted = {
        volume["persistentVolumeClaim"]["claimName"]
        for pod in map(pod_of, manifests)
        for volume in pod.get("volumes", ())
        if "persistentVolumeClaim" in volume
    }
    assert wanted == claims
    assert {one["metadata"].get("namespace", one["metadata"]["name"]) for one in manifests} == {"router-ml"}


def test_what_a_pod_may_call_in_its_namespace_may_be_called(manifests: list[dict[str, Any]]) -> None:
    policies = {one["metadata"]["name"]: one["spec"] for one in manifests if one["kind"] == "NetworkPolicy"}
    calls, called = policies["calls"], policies["called"]
    (rule,) = (rule for rule in calls["egress"] if rule["to"] == [{"podSelector": {}}])
    assert called["ingress"] == [{"from": [{"podSelector": calls["podSelector"]}], "ports": rule["ports"]}]


def test_jobs_do_not_overlap(manifests: list[dict[str, Any]]) -> None:
    jobs = [one["spec"] for one in manifests if one["kind"] == "CronJob"]
    assert jobs
    assert all(job["concurrencyPolicy"] == "Forbid" for job in jobs)
    assert all(job["jobTemplate"]["spec"]["activeDeadlineSeconds"] for job in jobs)


def test_alerts_look_at_metrics_and_labels_that_exist(root: Path) -> None:
    rules = yaml.safe_load((root / "serving" / "compose" / "alerts.yml").read_text(encoding="utf-8"))
    expressions = {rule["alert"]: rule["expr"] for group in rules["groups"] for rule in group["rules"]}
    known = _metrics()
    for alert, expression in expressions.items():
        for name, braces in re.findall(r"(router_ml_\w+)(?:\{([^}]*)\})?", expression):
            assert name in known, f"{alert}: {name}"
            assert set(re.findall(r"(\w+)\s*[=!]", braces)) <= known[name], f"{alert}: {braces}"
        assert expression.count("(") == expression.count(")"), alert
    assert len(expressions) > 5


def _metrics() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    telemetry = Telemetry()
    for collector in telemetry.registry._collector_to_names:
        for name in telemetry.registry._collector_to_names[collector]:
            found[name] = {*collector._labelnames, "le"}
    return found | {f"router_ml_recorder_{name}": set() for name in ("failed", "spilled", "pending")}


def test_prometheus_asks_what_compose_starts(root: Path, compose: dict[str, Any]) -> None:
    scraped = yaml.safe_load((root / "serving" / "compose" / "prometheus.yml").read_text(encoding="utf-8"))
    (job,) = scraped["scrape_configs"]
    (found,) = job["dns_sd_configs"]
    assert set(found["names"]) <= set(compose["services"])
    assert found["port"] == 8080
    mounted = {volume.split(":")[1] for volume in compose["services"]["prometheus"]["volumes"]}
    assert set(scraped["rule_files"]) <= mounted
    for service in compose["services"].values():
        files = [one.split(":")[0] for one in service.get("volumes", ()) if one.startswith("./")]
        assert [file for file in files if not (root / "serving" / file).exists()] == []
