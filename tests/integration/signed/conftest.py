"""A signed Bento, in the author's store and in a registry, and who signs: a key, or an identity of a stand-in's."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bentotool.cli.main import main
from bentotool.oci.attached import Attachment
from bentotool.oci.descriptor import INDEX, Index
from bentotool.oci.layout import Layout
from bentotool.oci.reference import RemoteReference
from bentotool.oci.referrers import referrers_tag
from bentotool.oci.refs import Ref, RefStore
from bentotool.oci.registry import Registry
from bentotool.trust.bundle import BUNDLE, key_bundle
from bentotool.trust.dsse import IN_TOTO, Envelope, pae
from bentotool.trust.evidence import Object
from bentotool.trust.objects import remote_objects, stored_bento_objects
from bentotool.trust.places import RegistryPlace, StorePlace
from bentotool.trust.privatekeys import load_private_key, make_pair

TESTS = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Sigstore on loopback."""
    if str(TESTS) not in sys.path:
        sys.path.append(str(TESTS))
    from sigstore_stand_in import StandIn

    found = StandIn(tmp_path_factory.mktemp("sigstore"))
    yield found
    found.close()


@dataclass(frozen=True)
class Who:
    """Somebody who signs.

    Args:
        signs: options of ``bentotool sign``.
        counts: options of ``bentotool verify``, with which the signature counts.
        others: the same for somebody else, by what is another.
        bundle: signs a payload of a type.
    """

    signs: tuple[str, ...]
    counts: tuple[str, ...]
    others: dict[str, tuple[str, ...]]
    bundle: Callable[[bytes, str], bytes]


@pytest.fixture(scope="session")
def by_key(tmp_path_factory: pytest.TempPathFactory) -> Who:
    folder = tmp_path_factory.mktemp("keys")
    mine, other = make_pair(folder / "mine.key", b""), make_pair(folder / "other.key", b"")

    def bundle(payload: bytes, kind: str = IN_TOTO) -> bytes:
        key = load_private_key(folder / "mine.key")
        return key_bundle(Envelope(kind, payload, (key.sign(pae(kind, payload)),)), "")

    return Who(("--key", str(mine.private)), ("--key", str(mine.public)), {"key": ("--key", str(other.public))}, bundle)


@pytest.fixture(scope="session")
def by_identity(instance: Any) -> Who:
    trust = ("--trust-config", str(instance.file("trust_config_v2.json")))
    token = instance.token("dev@example.com", seconds=3000)

    def counts(identity: str, issuer: str, roots: tuple[str, ...] = trust) -> tuple[str, ...]:
        return ("--identity", identity, "--issuer", issuer, *roots, "--offline")

    def bundle(payload: bytes, kind: str = IN_TOTO) -> bytes:
        from bentotool_sigstore.signers import Sigstore

        from bentotool.signspec import SigningRequest

        request = SigningRequest(identity_token=token, trust_config=Path(trust[1]))
        made: dict[str, Any] = json.loads(Sigstore().signer(request).sign_dsse(payload, IN_TOTO))  # type: ignore[union-attr]
        made["dsseEnvelope"]["payloadType"] = kind  # the library signs no other
        return json.dumps(made).encode()

    others = {
        "identity": counts("eve@example.com", instance.url),
        "issuer": counts("dev@example.com", "https://accounts.example.com"),
    }
    return Who(("--identity-token", token, *trust), counts("dev@example.com", instance.url), others, bundle)


@pytest.fixture(params=["key", "identity"])
def who(request: pytest.FixtureRequest, require_package: Callable[[str], None]) -> Who:
    if request.param == "identity":
        require_package("bentotool_sigstore")
    found: Who = request.getfixturevalue(f"by_{request.param}")
    return found


@dataclass
class Scene:
    """A signed Bento with a model: in the author's store, and where it is verified.

    Args:
        registry: None where the author's store is what is attacked.
    """

    layout: Layout
    registry: Registry | None
    remote: str
    capsys: pytest.CaptureFixture[str]

    def run(self, *arguments: str) -> int:
        self.capsys.readouterr()
        return main([*arguments, "--json", "--store", str(self.layout.root)])

    def done(self, *arguments: str) -> Any:
        status = self.run(*arguments)
        said = self.capsys.readouterr()
        assert status == 0, said.err
        return json.loads(said.out)

    def refused(self, *arguments: str) -> str:
        """What a command says that ends with 4."""
        status = self.run(*arguments)
        error = json.loads(self.capsys.readouterr().err.splitlines()[-1])["error"]
        assert (status, error["code"]) == (4, "verification_failed"), error
        assert error["message"]
        assert "\n" not in error["message"]
        return str(error["message"])

    @property
    def bento(self) -> Ref:
        return RefStore(self.layout).get("bentos", "svc:7")

    @property
    def where(self) -> str:
        """What a user gives to ``verify``."""
        return "svc:7" if self.registry is None else self.remote

    @property
    def place(self) -> Any:
        if self.registry is None:
            return StorePlace(self.layout)
        return RegistryPlace(self.registry, RemoteReference.parse(self.remote).repository)

    @property
    def objects(self) -> dict[str, Object]:
        """By kind, as they are verified."""
        if self.registry is None:
            found = stored_bento_objects(self.layout, self.bento.digest)
        else:
            found = remote_objects(self.registry, RemoteReference.parse(self.remote))
        return {each.kind: each for each in found}

    def publish(self, to: str = "") -> None:
        """Send what the author's store has to the registry, where that is what is attacked."""
        if self.registry is not None:
            self.done("push", "svc", to or self.remote)

    def strip(self, *kinds: str) -> None:
        """Take away all that is attached to objects."""
        for kind in kinds or tuple(self.objects):
            digest = self.objects[kind].digest
            if self.registry is not None:
                repository = RemoteReference.parse(self.remote).repository
                self.registry.upload_manifest(repository, referrers_tag(digest), Index(()).to_bytes(), INDEX)
                continue
            for mark in (self.layout.root / "refs" / "referrers").rglob("*"):
                if mark.is_file() and digest.removeprefix("sha256:") in mark.as_posix().replace(":", "-"):
                    mark.unlink()

    def attach(self, kind: str, bundle: bytes, note: str = "") -> str:
        """Attach a bundle to an object, as its signer would."""
        notes = {"note": note} if note else {}
        digest: str = self.place.attach(self.objects[kind], Attachment(bundle, BUNDLE), BUNDLE, notes)
        return digest


@pytest.fixture
def scenes() -> type[Scene]:
    """The class, for tests, which cannot import it."""
    return Scene


@pytest.fixture(scope="module")
def registry_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("registry")


@pytest.fixture(scope="module")
def host(start_registry: Callable[..., contextlib.AbstractContextManager[str]], registry_folder: Path) -> Iterator[str]:
    """A docker-registry whose files are in ``registry_folder / "data"``."""
    with start_registry(registry_folder) as found:
        yield found


@pytest.fixture(params=["registry", "store"])
def scene(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    make_model: Callable[..., Any],
    make_bento: Callable[..., Ref],
    who: Who,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[Scene]:
    """A Bento ``svc:7`` with a model, signed and verified."""
    layout = Layout(tmp_path / "author")
    make_bento(layout, [make_model(layout)])
    with contextlib.ExitStack() as opened:
        found, registry = "", None
        if request.param == "registry":
            host = request.getfixturevalue("host")
            registry = opened.enter_context(Registry(host, push=True))
            found = f"{host}/t{abs(hash(request.node.nodeid)):x}/svc:7"
        made = Scene(layout, registry, found, capsys)
        made.done("sign", "svc", *who.signs)
        made.publish()
        assert made.done("verify", made.where, *who.counts)["verified"]
        yield made
