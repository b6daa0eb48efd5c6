"""The part of custom resources that deploy/ may use, as JSON Schema.

By hand, from the API references of KubeRay (ray.io/v1) and of the Prometheus operator
(monitoring.coreos.com/v1). KubeRay's own schema has 800,000 characters, nearly all of it
Kubernetes' pods, which kubernetes-validate checks in its place.
"""

from typing import Any


def _closed(required: str = "", **properties: Any) -> dict[str, Any]:
    """An object with these properties and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": required.split(),
        "additionalProperties": False,
    }


_TEXT = {"type": "string"}
_COUNT = {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}
_BOOLEAN = {"type": "boolean"}
_PARAMETERS = {"type": "object", "additionalProperties": _TEXT}
_POD = {"type": "object", "required": ["spec"]}

_CLUSTER = _closed(
    "headGroupSpec",
    rayVersion=_TEXT,
    authOptions=_closed("mode", mode={"enum": ["disabled", "token"]}),
    enableInTreeAutoscaling=_BOOLEAN,
    autoscalerOptions=_closed(
        idleTimeoutSeconds=_COUNT,
        securityContext={"type": "object"},
        upscalingMode={"enum": ["Default", "Aggressive", "Conservative"]},
        version={"enum": ["v1", "v2"]},
    ),
    headGroupSpec=_closed("template rayStartParams", rayStartParams=_PARAMETERS, template=_POD),
    workerGroupSpecs={
        "type": "array",
        "items": _closed(
            "groupName template rayStartParams",
            groupName=_TEXT,
            replicas=_COUNT,
            minReplicas=_COUNT,
            maxReplicas=_COUNT,
            idleTimeoutSeconds=_COUNT,
            numOfHosts=_COUNT,
            rayStartParams=_PARAMETERS,
            template=_POD,
        ),
    },
)

_SPECS = {
    "RayService": _closed(
        "rayClusterConfig serveConfigV2",
        serveConfigV2=_TEXT,
        rayClusterConfig=_CLUSTER,
        excludeHeadPodFromServeSvc=_BOOLEAN,
        upgradeStrategy=_closed(type={"enum": ["NewCluster", "None"]}),
    ),
    "RayJob": _closed(
        "rayClusterSpec entrypoint",
        entrypoint=_TEXT,
        runtimeEnvYAML=_TEXT,
        submissionMode={"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode"]},
        shutdownAfterJobFinishes=_BOOLEAN,
        ttlSecondsAfterFinished=_COUNT,
        activeDeadlineSeconds=_COUNT,
        backoffLimit=_COUNT,
        submitterPodTemplate=_POD,
        rayClusterSpec=_CLUSTER,
    ),
}

_LABELS = _closed("matchLabels", matchLabels=_PARAMETERS)
_MONITOR = _closed(
    "selector endpoints",
    selector=_LABELS,
    jobLabel=_TEXT,
    endpoints={
        "type": "array",
        "minItems": 1,
        "items": _closed("port", port=_TEXT, path=_TEXT, interval=_TEXT, scrapeTimeout=_TEXT),
    },
)


def _resource(version: str, kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    return _closed(
        "apiVersion kind metadata spec",
        apiVersion={"const": version},
        kind={"const": kind},
        metadata=_closed("name", name=_TEXT, namespace=_TEXT, labels=_PARAMETERS),
        spec=spec,
    )


SCHEMAS = {kind: _resource("ray.io/v1", kind, spec) for kind, spec in _SPECS.items()} | {
    "ServiceMonitor": _resource("monitoring.coreos.com/v1", "ServiceMonitor", _MONITOR)
}
