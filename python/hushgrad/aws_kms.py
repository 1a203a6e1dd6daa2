"""Keys in AWS KMS, through boto3 (``pip install hushgrad[aws]``).

An adapter for :class:`hushgrad.keys.KeyProvider`, and the model for other key services: this file is all it takes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Any

from hushgrad.errors import InvalidArgument, KeyError, SealError
from hushgrad.keys import Key, KeyProvider, KeyState, fips_mode

__all__ = ["AwsKms"]

_STATES: dict[str, KeyState] = {"Enabled": "active", "Disabled": "suspended", "PendingDeletion": "suspended"}
_ALTERED = ("InvalidCiphertextException", "IncorrectKeyException")
_NEVER = datetime(1970, 1, 1, tzinfo=timezone.utc)


class AwsKms(KeyProvider):
    """Wraps file keys under symmetric KMS keys, one a dataset, with the dataset in the encryption context.

    KMS itself keeps states, policies, rotation and its own log (CloudTrail): disable a key there to suspend a dataset, and
    schedule its deletion to shred it. The state is asked at each use, so that it counts at once. When KMS cannot be reached
    or refuses, the call is a ``KeyError``; no other provider is asked instead.

    Args:
        keys: dataset -> id, ARN or alias of the KMS key that wraps now.
        former: key ARNs that wrapped files of a dataset before, which may still be opened.
        tenant: whose datasets these are; part of the encryption context.
        client: a boto3 KMS client; by default one with short time-outs, and with FIPS endpoints in FIPS mode.
        timeout: seconds for a connection and for an answer of the default client.
    """

    def __init__(
        self,
        keys: Mapping[str, str],
        *,
        former: Mapping[str, tuple[str, ...]] | None = None,
        tenant: str = "default",
        client: Any = None,
        timeout: int = 10,
    ) -> None:
        super().__init__()
        self._client = client if client is not None else _default_client(timeout)
        self._tenant = tenant
        self._current = dict(keys)
        self._places: dict[str, tuple[str, str]] = {}  # key id -> (dataset, ARN)
        for dataset, name in self._current.items():
            for arn in (self._arn(name), *(former or {}).get(dataset, ())):
                self._places[_id(dataset, arn)] = (dataset, arn)

    def name(self) -> str:
        return f"AWS KMS in {self._client.meta.region_name}"

    def wrap(self, dataset: str, data_key: bytes) -> tuple[str, bytes, int]:
        if dataset not in self._current:
            raise KeyError(f"[aws_kms] Expected a KMS key for dataset {dataset!r}, received none. Name one in keys.")
        arn = self._arn(self._current[dataset])
        self._require(arn, ("active",))
        answer = self._ask(
            self._client.encrypt, KeyId=arn, Plaintext=data_key, EncryptionContext=self._context(dataset)
        )
        key_id = _id(dataset, arn)
        self._places[key_id] = (dataset, arn)  # an alias may point to another key than before
        return key_id, bytes(answer["CiphertextBlob"]), 0

    def unwrap(self, key_id: str, wrapped: bytes, generation: int) -> bytes:
        dataset, arn = self._place(key_id)
        self._require(arn, ("active", "deactivated"))
        if not wrapped:
            raise SealError("[aws_kms] Expected a wrapped data key, received nothing. Use an intact copy of the file.")
        answer = self._ask(
            self._client.decrypt, KeyId=arn, CiphertextBlob=wrapped, EncryptionContext=self._context(dataset)
        )
        return bytes(answer["Plaintext"])

    def key(self, key_id: str) -> Key:
        dataset, arn = self._place(key_id)
        return self._describe(key_id, dataset, arn)

    def keys(self) -> list[Key]:
        return [self._describe(key_id, dataset, arn) for key_id, (dataset, arn) in self._places.items()]

    def _place(self, key_id: str) -> tuple[str, str]:
        if key_id not in self._places:
            raise KeyError(f"[aws_kms] Expected a key of these datasets, received {key_id}. Name it in keys or former.")
        return self._places[key_id]

    def _context(self, dataset: str) -> dict[str, str]:
        return {"purpose": "hushgrad sealed file", "dataset": dataset, "tenant": self._tenant}

    def _arn(self, name: str) -> str:
        return str(self._metadata(name)["Arn"])

    def _metadata(self, name: str) -> dict[str, Any]:
        metadata: dict[str, Any] = self._ask(self._client.describe_key, KeyId=name)["KeyMetadata"]
        return metadata

    def _describe(self, key_id: str, dataset: str, arn: str) -> Key:
        try:
            metadata = self._metadata(arn)
        except KeyError as error:
            if "NotFoundException" not in str(error):
                raise
            return Key(key_id, dataset, _NEVER, "destroyed", self._tenant)
        state = _STATES.get(metadata["KeyState"], "suspended")
        if state == "active" and arn != self._arn(self._current[dataset]):
            state = "deactivated"
        return Key(key_id, dataset, metadata["CreationDate"].astimezone(timezone.utc), state, self._tenant)

    def _require(self, arn: str, states: tuple[KeyState, ...]) -> None:
        found = self._metadata(arn)["KeyState"]
        if _STATES.get(found, "suspended") not in states:
            raise KeyError(f"[aws_kms] Expected an enabled key {arn}, received one that is {found}. Ask its administrators.")

    def _ask(self, call: Callable[..., Any], **request: Any) -> Any:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return call(**request)
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", "an error"))
            if code in _ALTERED:
                raise SealError(
                    "[aws_kms] Expected a data key wrapped under the named key for this dataset, received one that was "
                    "altered or wrapped under another. Use an intact copy of the file."
                ) from None
            raise KeyError(f"[aws_kms] Expected an answer of AWS KMS, received {code}. See its key policy and log.") from None
        except BotoCoreError as error:
            # The text of the exception may hold the request.
            kind = type(error).__name__
            raise KeyError(f"[aws_kms] Expected an answer of AWS KMS, received {kind}. Nothing was used instead.") from None


def _id(dataset: str, arn: str) -> str:
    return hashlib.sha384(f"hushgrad aws kms\0{arn}\0{dataset}".encode()).hexdigest()[:32]


def _default_client(timeout: int) -> Any:
    try:
        import boto3
        from botocore.config import Config
    except ImportError:
        raise InvalidArgument("[aws_kms] Expected boto3, received none. Install it: pip install hushgrad[aws].") from None
    config = Config(
        connect_timeout=timeout, read_timeout=timeout, retries={"max_attempts": 2}, use_fips_endpoint=fips_mode() or None
    )
    return boto3.client("kms", config=config)
