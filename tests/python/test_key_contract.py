"""Every provider under the one contract: keyring, protected keyring, PKCS#11 on SoftHSM, AWS KMS on moto's local server, and a keyring
together with either."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from key_provider_contract import DATA_KEY, KeyProviderContract, unwraps, wrap

from hushgrad.errors import InvalidArgument, KeyError
from hushgrad.keys import JointProvider, Key, KeyProvider, Keyring, Pkcs11


class KeyringPlace:
    def __init__(self, path: Path, passphrase: str | None) -> None:
        self.path, self.passphrase = path, passphrase
        keyring = Keyring.create(path, passphrase=passphrase)
        keyring.create_key(dataset="a")
        keyring.create_key(dataset="b", tenant="other")

    def open(self) -> Keyring:
        return Keyring(self.path, passphrase=self.passphrase)

    def suspend(self, dataset: str) -> None:
        self.open().suspend(dataset=dataset, reason="test")

    def destroy(self, dataset: str) -> None:
        self.open().shred(dataset=dataset, reason="test")


class TestKeyring(KeyProviderContract):
    @pytest.fixture
    def place(self, tmp_path: Path) -> KeyringPlace:
        return KeyringPlace(tmp_path / "k", None)


class TestKeyringWithPassphrase(KeyProviderContract):
    @pytest.fixture
    def place(self, tmp_path: Path) -> KeyringPlace:
        return KeyringPlace(tmp_path / "k", "correct horse battery staple")


MODULES = ["/usr/lib/softhsm/libsofthsm2.so", "/usr/lib64/softhsm/libsofthsm2.so"]


class SoftHsmPlace:
    def __init__(self, folder: Path, module: str) -> None:
        self.folder, self.module = folder, module
        (folder / "tokens").mkdir()
        (folder / "conf").write_text(f"directories.tokendir = {folder / 'tokens'}\nobjectstore.backend = file\n")
        os.environ["SOFTHSM2_CONF"] = str(folder / "conf")
        words = ["softhsm2-util", "--init-token", "--free", "--label", "test", "--so-pin", "12345678", "--pin", "4711-pin"]
        subprocess.run(words, check=True, capture_output=True)
        (folder / "pin").write_text("4711-pin\n")
        (folder / "pin").chmod(0o600)
        for dataset in ("a", "b"):
            self.open().create_key(dataset=dataset)

    def open(self) -> Pkcs11:
        return Pkcs11(self.module, "test", pin_file=self.folder / "pin", timeout=60)

    def suspend(self, dataset: str) -> None:
        self.open().suspend(dataset=dataset)

    def destroy(self, dataset: str) -> None:
        self.open().destroy(dataset=dataset)


@pytest.fixture
def softhsm(tmp_path: Path) -> SoftHsmPlace:
    module = next((path for path in MODULES if Path(path).exists()), None)
    if module is None or shutil.which("softhsm2-util") is None:
        pytest.skip("SKIPPED: SoftHSM 2 is not installed (apt install softhsm2)")
    return SoftHsmPlace(tmp_path, module)


class JointPlace:
    """A keyring and another place together; the other suspends, the keyring destroys."""

    def __init__(self, folder: Path, other: Any) -> None:
        self.other = other
        self.keyring = KeyringPlace(folder / "joint", None)

    def open(self) -> JointProvider:
        return JointProvider(self.keyring.open(), self.other.open())

    def suspend(self, dataset: str) -> None:
        self.other.suspend(dataset)

    def destroy(self, dataset: str) -> None:
        self.keyring.destroy(dataset)


class TestKeyringWithPkcs11(KeyProviderContract):
    @pytest.fixture
    def place(self, softhsm: SoftHsmPlace, tmp_path: Path) -> JointPlace:
        return JointPlace(tmp_path, softhsm)


class TestPkcs11(KeyProviderContract):
    @pytest.fixture
    def place(self, softhsm: SoftHsmPlace) -> SoftHsmPlace:
        return softhsm


def test_pins_come_from_a_private_file_or_a_descriptor(softhsm: SoftHsmPlace) -> None:
    read, write = os.pipe()
    os.write(write, b"4711-pin\n")
    os.close(write)
    assert Pkcs11(softhsm.module, "test", pin_descriptor=read, timeout=60).has_key(dataset="a")
    os.close(read)
    (softhsm.folder / "pin").chmod(0o644)
    with pytest.raises(KeyError, match="0600"):
        softhsm.open()
    with pytest.raises(InvalidArgument):
        Pkcs11(softhsm.module, "test")


def test_tokens_on_the_command_line(softhsm: SoftHsmPlace) -> None:
    at = ("--module", softhsm.module, "--token", "test", "--pin-file", str(softhsm.folder / "pin"))

    def token(*words: str) -> str:
        code = "from hushgrad.cli import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", code, "keys", "token", *words, *at], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    for command, states in (
        ("create", ["active"]),
        ("rotate", ["active", "deactivated"]),
        ("suspend", ["suspended", "suspended"]),
        ("revoke", ["compromised", "compromised"]),
    ):
        token(command, "--dataset", "c")
        assert sorted(key.state for key in softhsm.open().list() if key.dataset == "c") == states
    assert json.loads(token("list", "--json"))["keys"][0]["state"] == "active"
    token("destroy", "--dataset", "c", "--yes")
    assert "c" not in [key.dataset for key in softhsm.open().list()]


@pytest.fixture(scope="module")
def kms() -> Iterator[Any]:
    pytest.importorskip("boto3", reason="SKIPPED: boto3 is not installed")
    server_module = pytest.importorskip("moto.server", reason="SKIPPED: moto is not installed")
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield new_client(f"http://{host}:{port}")
    server.stop()


def new_client(endpoint: str, **options: Any) -> Any:
    import boto3

    # A session of its own: the default one is shared by threads, and by forked processes.
    session = boto3.Session(aws_access_key_id="test", aws_secret_access_key="test", region_name="eu-central-1")
    return session.client("kms", endpoint_url=endpoint, **options)


class KmsPlace:
    """The client is made anew for each provider: a forked process must not share connections."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.arns = {name: client.create_key()["KeyMetadata"]["Arn"] for name in ("a", "b")}

    def open(self) -> Any:
        from hushgrad.aws_kms import AwsKms

        return AwsKms(self.arns, client=new_client(self.client.meta.endpoint_url))

    def suspend(self, dataset: str) -> None:
        self.client.disable_key(KeyId=self.arns[dataset].rpartition("/")[2])

    def destroy(self, dataset: str) -> None:
        self.client.schedule_key_deletion(KeyId=self.arns[dataset].rpartition("/")[2], PendingWindowInDays=7)


class TestKeyringWithAwsKms(KeyProviderContract):
    @pytest.fixture
    def place(self, kms: Any, tmp_path: Path) -> JointPlace:
        return JointPlace(tmp_path, KmsPlace(kms))

    def test_the_service_sees_no_key_of_a_file(self, place: JointPlace) -> None:
        seen = []
        provider = place.open()
        service = place.other.open()

        class Watched(KeyProvider):
            def name(self) -> str:
                return "watched"

            def wrap(self, dataset: str, data_key: bytes) -> tuple[str, bytes, int]:
                seen.append(data_key)
                return service.wrap(dataset, data_key)  # type: ignore[no-any-return]

            def unwrap(self, key_id: str, wrapped: bytes, generation: int) -> bytes:
                seen.append(service.unwrap(key_id, wrapped, generation))
                return seen[-1]  # type: ignore[no-any-return]

            def key(self, key_id: str) -> Key:
                return service.key(key_id)  # type: ignore[no-any-return]

            def keys(self) -> list[Key]:
                return service.keys()  # type: ignore[no-any-return]

        watched = JointProvider(place.keyring.open(), Watched())
        wrapped = wrap(watched)
        assert unwraps(watched, wrapped) and unwraps(provider, wrapped)
        assert len(seen) == 2 and seen[0] == seen[1] != DATA_KEY


class TestAwsKms(KeyProviderContract):
    @pytest.fixture
    def place(self, kms: Any) -> KmsPlace:
        return KmsPlace(kms)

    def test_the_dataset_is_bound(self, kms: Any) -> None:
        from hushgrad.aws_kms import AwsKms

        arn = kms.create_key()["KeyMetadata"]["Arn"]
        both = AwsKms({"a": arn, "b": arn}, client=kms)
        (a, wrapped, _), (b, _, _) = wrap(both), wrap(both, "b")
        assert a != b and unwraps(both, (a, wrapped, 0))
        with pytest.raises(Exception, match="altered or wrapped under another"):
            unwraps(both, (b, wrapped, 0))

    def test_a_former_key_still_opens(self, kms: Any) -> None:
        from hushgrad.aws_kms import AwsKms

        old, new = (kms.create_key()["KeyMetadata"]["Arn"] for _ in range(2))
        wrapped = wrap(AwsKms({"a": old}, client=kms))
        rotated = AwsKms({"a": new}, former={"a": (old,)}, client=kms)
        assert unwraps(rotated, wrapped)
        assert sorted(key.state for key in rotated.keys()) == ["active", "deactivated"]
        with pytest.raises(KeyError):
            unwraps(AwsKms({"a": new}, client=kms), wrapped)

    def test_an_unreachable_service_fails_closed(self, kms: Any, tmp_path: Path) -> None:
        from botocore.config import Config

        place = KmsPlace(kms)
        provider = place.open()
        wrapped = wrap(provider)
        settings = Config(connect_timeout=1, retries={"max_attempts": 0})
        provider._client = new_client("http://127.0.0.1:9", config=settings)
        with pytest.raises(KeyError) as caught:
            unwraps(provider, wrapped)
        assert "EndpointConnectionError" in str(caught.value)
        assert DATA_KEY.hex() not in str(caught.value)
