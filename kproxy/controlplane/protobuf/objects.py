"""Objects that modern kubectl sends as protobuf only: ``create``, ``auth can-i``, ``drain``.

The envelope (``k8s``, a zero, and a ``runtime.Unknown``) names kind and version. Below are the
field numbers (Kubernetes, the generated.proto of each group) of the kinds and fields that we can
read; whatever else is in a body is refused rather than dropped, so nothing is lost silently.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kproxy import errors

from . import wire

Object = dict[str, Any]

CONTENT_TYPE = "application/vnd.kubernetes.protobuf"
MAGIC = b"k8s\0"


@dataclass(frozen=True, slots=True)
class Field:
    """A field: its name in JSON, and its type: a scalar's, or the name of a message.

    ``[]`` before the type: repeated; ``{}``: a map of strings. Absent numbers are zero, which is
    left out, for so does Kubernetes in JSON; ``int!`` and ``bool!`` are kept (pointers).
    """

    name: str
    type: str


def _message(text: str) -> dict[int, Field]:
    """Read ``number name type`` triples."""
    words = text.split()
    triples = zip(words[::3], words[1::3], words[2::3], strict=True)
    return {int(number): Field(name, kind) for number, name, kind in triples}


MESSAGES: Mapping[str, Mapping[int, Field]] = {
    "ObjectMeta": _message(
        "1 name str 2 generateName str 3 namespace str 5 uid str 6 resourceVersion str"
        " 7 generation int 8 creationTimestamp Time 9 deletionTimestamp Time"
        " 10 deletionGracePeriodSeconds int! 11 labels {}str 12 annotations {}str"
        " 13 ownerReferences []OwnerReference 14 finalizers []str"
    ),
    "OwnerReference": _message(
        "1 kind str 3 name str 4 uid str 5 apiVersion str 6 controller bool!"
        " 7 blockOwnerDeletion bool!"
    ),
    "Namespace": _message("1 metadata ObjectMeta 2 spec NamespaceSpec 3 status NamespaceStatus"),
    "NamespaceSpec": _message("1 finalizers []str"),
    "NamespaceStatus": _message("1 phase str"),
    "ConfigMap": _message(
        "1 metadata ObjectMeta 2 data {}str 3 binaryData {}bytes 4 immutable bool!"
    ),
    "Secret": _message(
        "1 metadata ObjectMeta 2 data {}bytes 3 type str 4 stringData {}str 5 immutable bool!"
    ),
    "ServiceAccount": _message("1 metadata ObjectMeta 4 automountServiceAccountToken bool!"),
    "Service": _message("1 metadata ObjectMeta 2 spec ServiceSpec 3 status ServiceStatus"),
    "ServiceStatus": _message("1 loadBalancer LoadBalancerStatus"),
    "LoadBalancerStatus": {},
    "ServiceSpec": _message(
        "1 ports []ServicePort 2 selector {}str 3 clusterIP str 4 type str 5 externalIPs []str"
        " 7 sessionAffinity str 8 loadBalancerIP str 9 loadBalancerSourceRanges []str"
        " 10 externalName str 11 externalTrafficPolicy str 12 healthCheckNodePort int"
        " 13 publishNotReadyAddresses bool 14 sessionAffinityConfig SessionAffinityConfig"
        " 17 ipFamilyPolicy str 18 clusterIPs []str 19 ipFamilies []str"
        " 20 allocateLoadBalancerNodePorts bool! 21 loadBalancerClass str"
        " 22 internalTrafficPolicy str 23 trafficDistribution str"
    ),
    "ServicePort": _message(
        "1 name str 2 protocol str 3 port int 4 targetPort IntOrString 5 nodePort int"
        " 6 appProtocol str"
    ),
    "SessionAffinityConfig": _message("1 clientIP ClientIPConfig"),
    "ClientIPConfig": _message("1 timeoutSeconds int!"),
    "Deployment": _message(
        "1 metadata ObjectMeta 2 spec DeploymentSpec 3 status DeploymentStatus"
    ),
    "DeploymentStatus": {},
    "DeploymentSpec": _message(
        "1 replicas int! 2 selector LabelSelector 3 template PodTemplateSpec"
        " 4 strategy DeploymentStrategy 5 minReadySeconds int 6 revisionHistoryLimit int!"
        " 7 paused bool 9 progressDeadlineSeconds int!"
    ),
    "DeploymentStrategy": _message("1 type str 2 rollingUpdate RollingUpdateDeployment"),
    "RollingUpdateDeployment": _message("1 maxUnavailable IntOrString 2 maxSurge IntOrString"),
    "LabelSelector": _message("1 matchLabels {}str 2 matchExpressions []LabelSelectorRequirement"),
    "LabelSelectorRequirement": _message("1 key str 2 operator str 3 values []str"),
    "PodTemplateSpec": _message("1 metadata ObjectMeta 2 spec PodSpec"),
    "Pod": _message("1 metadata ObjectMeta 2 spec PodSpec 3 status PodStatus"),
    "PodStatus": _message("1 phase str"),
    "PodSpec": _message(
        "2 containers []Container 3 restartPolicy str 4 terminationGracePeriodSeconds int!"
        " 5 activeDeadlineSeconds int! 6 dnsPolicy str 7 nodeSelector {}str"
        " 8 serviceAccountName str 9 serviceAccount str 10 nodeName str 11 hostNetwork bool"
        " 14 securityContext PodSecurityContext 16 hostname str 17 subdomain str"
        " 19 schedulerName str 20 initContainers []Container"
    ),
    "PodSecurityContext": {},
    "Container": _message(
        "1 name str 2 image str 3 command []str 4 args []str 5 workingDir str"
        " 6 ports []ContainerPort 7 env []EnvVar 8 resources ResourceRequirements"
        " 13 terminationMessagePath str 14 imagePullPolicy str 16 stdin bool"
        " 17 stdinOnce bool 18 tty bool 20 terminationMessagePolicy str"
    ),
    "ContainerPort": _message(
        "1 name str 2 hostPort int 3 containerPort int 4 protocol str 5 hostIP str"
    ),
    "EnvVar": _message("1 name str 2 value str"),
    "ResourceRequirements": {},
    "DeleteOptions": _message(
        "1 gracePeriodSeconds int! 2 preconditions Preconditions 3 orphanDependents bool!"
        " 4 propagationPolicy str 5 dryRun []str"
    ),
    "Preconditions": _message("1 uid str 2 resourceVersion str"),
    "Eviction": _message("1 metadata ObjectMeta 2 deleteOptions DeleteOptions"),
    "Scale": _message("1 metadata ObjectMeta 2 spec ScaleSpec"),
    "ScaleSpec": _message("1 replicas int!"),
    "SelfSubjectAccessReview": _message(
        "1 metadata ObjectMeta 2 spec AccessReviewSpec 3 status AccessReviewStatus"
    ),
    "SelfSubjectRulesReview": _message(
        "1 metadata ObjectMeta 2 spec RulesReviewSpec 3 status RulesReviewStatus"
    ),
    "RulesReviewSpec": _message("1 namespace str"),
    "RulesReviewStatus": _message("3 incomplete bool"),
    "SelfSubjectReview": _message("1 metadata ObjectMeta 2 status SelfSubjectReviewStatus"),
    "SelfSubjectReviewStatus": _message("1 userInfo UserInfo"),
    "UserInfo": _message("1 username str 2 uid str"),
    "AccessReviewSpec": _message(
        "1 resourceAttributes ResourceAttributes 2 nonResourceAttributes NonResourceAttributes"
    ),
    "AccessReviewStatus": _message("1 allowed bool"),
    "ResourceAttributes": _message(
        "1 namespace str 2 verb str 3 group str 4 version str 5 resource str 6 subresource str"
        " 7 name str"
    ),
    "NonResourceAttributes": _message("1 path str 2 verb str"),
    "TokenRequest": _message("1 metadata ObjectMeta 2 spec TokenRequestSpec 3 status TokenStatus"),
    "TokenRequestSpec": _message(
        "1 audiences []str 3 boundObjectRef BoundObject 4 expirationSeconds int!"
    ),
    "BoundObject": _message("1 kind str 2 apiVersion str 3 name str 4 uid str"),
    "TokenStatus": _message("1 token str 2 expirationTimestamp Time"),
}
"""Messages by name; one without fields is read where it is empty."""


def decode(body: bytes) -> Object:
    """Return the object in a body. Raises ApiError: 400 if it is broken, 415 if it is another."""
    if not body.startswith(MAGIC):
        raise errors.ApiError(400, "BadRequest", "the body is no protobuf of Kubernetes")
    try:
        version, kind, raw = _envelope(body[len(MAGIC) :])
        if kind not in MESSAGES:
            raise _unsupported(kind)
        return {"apiVersion": version, "kind": kind, **_decode(raw, kind, kind)}
    except (wire.Malformed, UnicodeDecodeError) as error:
        message = f"the body is no protobuf of Kubernetes: {error}"
        raise errors.ApiError(400, "BadRequest", message) from None


def _envelope(data: bytes) -> tuple[str, str, bytes]:
    version = kind = ""
    raw = b""
    for number, value in wire.fields(data):
        if number == 2 and isinstance(value, bytes):
            raw = value
        elif number == 1 and isinstance(value, bytes):
            for inner, text in wire.fields(value):
                if inner == 1:
                    version = _text(text)
                elif inner == 2:
                    kind = _text(text)
        elif value:
            raise wire.Malformed(f"an envelope with field {number}")
    return version, kind, raw


def _decode(data: bytes, name: str, where: str) -> Object:
    result: Object = {}
    known = MESSAGES[name]
    for number, value in wire.fields(data):
        field = known.get(number)
        if field is None:
            if not value and number in range(1, 100):
                continue  # a message or text without anything in it says nothing
            raise _unsupported(f"{where} with field {number}")
        place = f"{where}.{field.name}"
        if field.type.startswith("[]"):
            one = _value(value, field.type[2:], place)
            result.setdefault(field.name, []).append(one)
        elif field.type.startswith("{}"):
            key, text = _pair(value, field.type[2:])
            result.setdefault(field.name, {})[key] = text
        else:
            one = _value(value, field.type, place)
            if one not in (None, "", 0, {}) or field.type.endswith("!"):
                result[field.name] = one
    return result


def _value(value: int | bytes, kind: str, where: str) -> Any:
    match kind:
        case "str":
            return _text(value)
        case "int" | "int!":
            return wire.signed(_int(value))
        case "bool" | "bool!":
            return bool(_int(value))
        case "IntOrString":
            return _int_or_string(value)
        case "Time":
            return None  # the server's to set; a client sends an empty one
    if not isinstance(value, bytes):
        raise wire.Malformed(f"{where} is no message")
    return _decode(value, kind, where)


def _pair(value: int | bytes, kind: str) -> tuple[str, str]:
    if not isinstance(value, bytes):
        raise wire.Malformed("an entry of a map is no message")
    found = dict(wire.fields(value))
    key, content = _text(found.get(1, b"")), found.get(2, b"")
    if kind == "bytes" and isinstance(content, bytes):
        return key, base64.b64encode(content).decode()
    return key, _text(content)


def _int_or_string(value: int | bytes) -> int | str:
    if not isinstance(value, bytes):
        raise wire.Malformed("a number or text is no message")
    found = dict(wire.fields(value))
    if found.get(1, 0):
        return _text(found.get(3, b""))
    return wire.signed(_int(found.get(2, 0)))


def _text(value: int | bytes) -> str:
    if not isinstance(value, bytes):
        raise wire.Malformed("text is a number")
    return value.decode()


def _int(value: int | bytes) -> int:
    if not isinstance(value, int):
        raise wire.Malformed("a number is text")
    return value


def _unsupported(what: str) -> errors.ApiError:
    message = f"{what} in protobuf is not supported: send JSON (kubectl apply and create -f do)"
    return errors.ApiError(415, "UnsupportedMediaType", message)
