"""The part of KubeRay's custom resources that deploy/kuberay may use, as JSON Schema.

By hand, from KubeRay's API reference (ray.io/v1): its own schema has 800,000 characters, nearly all
of it Kubernetes' pods, which kubernetes-validate checks in its place.
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
    enableInTreeAutoscaling=_BOOLEAN,
    autoscalerOptions=_closed(
        idleTimeoutSeconds=_COUNT,
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
        rayClusterSpec=_CLUSTER,
    ),
}

SCHEMAS = {
    kind: _closed(
        "apiVersion kind metadata spec",
        apiVersion={"const": "ray.io/v1"},
        kind={"const": kind},
        metadata=_closed("name", name=_TEXT, namespace=_TEXT, labels=_PARAMETERS),
        spec=spec,
    )
    for kind, spec in _SPECS.items()
}
