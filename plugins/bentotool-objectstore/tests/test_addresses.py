"""Addresses, and where credentials come from."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from bentotool_objectstore.address import parse
from bentotool_objectstore.source import ObjectStoreSource
from bentotool_objectstore.stores import open_store

from bentotool.errors import AuthenticationError, BentotoolError, RemoteError, UnsafeError, UsageError
from bentotool.interfaces import SourceModel, SourceRequest


def fetch(uri: str, folder: Path) -> SourceModel:
    folder.mkdir(exist_ok=True)
    return ObjectStoreSource().fetch(SourceRequest(uri, folder, 1 << 20, None, lambda amount: None))


def test_the_parts_of_an_address() -> None:
    address = parse("s3://models/fraud/model.onnx")
    assert (address.kind, address.bucket, address.key, address.folder) == ("s3", "models", "fraud/model.onnx", False)
    assert parse("gs://models/a/").folder
    assert parse("az://models").folder
    address = parse("abfss://models@account.dfs.core.windows.net/a")
    assert (address.kind, address.bucket, address.account, address.key) == ("az", "models", "account", "a")


@pytest.mark.parametrize(
    "uri",
    [
        "s3://",
        "s3:///key",
        "s3://key:s3cr3t@bucket/m",
        "s3://s3cr3t@bucket/m",
        "s3://bucket/m?X-Amz-Signature=s3cr3t",
        "az://bucket/m?sig=s3cr3t",
        "s3://bucket//m",
        "s3://bucket/a//m",
        "s3://bucket/../m",
        "s3://bucket/./m",
        "s3://bucket/m\n",
        "s3://bucket/m\x00",
        "s3://bucket/m\u2028x",
        "s3://bucket/m\ud800",
        "s3://buck et/m",
        "s3://buckét/m",
        "abfss://models/m",
        "abfss://models@evil.example/m",
        "abfss://models@account.dfs.core.windows.net.evil.example/m",
        "abfss://m:s3cr3t@account.dfs.core.windows.net/m",
    ],
)
def test_addresses_that_are_refused_without_being_repeated(uri: str) -> None:
    with pytest.raises(UsageError) as failed:
        parse(uri)
    text = f"{failed.value.message} {failed.value.hint}"
    assert "s3cr3t" not in text
    assert "\n" not in text


@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_no_credentials_at_all(scheme: str, tmp_path: Path) -> None:
    with pytest.raises(AuthenticationError, match="no credentials") as failed:
        fetch(f"{scheme}://models/m", tmp_path / "f")
    assert failed.value.hint


def test_a_machine_that_has_no_role(door: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_EC2_METADATA_DISABLED"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", door.url)
    for told in ("404 NotFound", "403 Forbidden", "400 BadRequest"):
        door.rule = lambda asked, told=told: told
        with pytest.raises(AuthenticationError, match="no credentials for s3://models"):
            fetch("s3://models/m", tmp_path / "f")
    assert all(asked.path.startswith("/latest/") for asked in door.asked)


def test_settings_that_are_half_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="which storage account"):
        open_store(parse("az://models/m"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAOFNOBODY")
    with pytest.raises(AuthenticationError, match="no secret"):
        open_store(parse("s3://models/m"))
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(AuthenticationError, match="no AWS profile 'nobody'"):
        open_store(parse("s3://models/m"))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/no/such/file")
    with pytest.raises(AuthenticationError, match="does not exist"):
        open_store(parse("gs://models/m"))
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT", "mine")
    with pytest.raises(UsageError, match="another account"):
        open_store(parse("abfss://models@theirs.dfs.core.windows.net/m"))


@pytest.mark.parametrize(
    ("variable", "uri"),
    [("AWS_ENDPOINT_URL", "s3://b/m"), ("STORAGE_EMULATOR_HOST", "gs://b/m"), ("AZURE_STORAGE_ENDPOINT", "az://b/m")],
)
def test_endpoints_without_tls(monkeypatch: pytest.MonkeyPatch, variable: str, uri: str) -> None:
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT", "mine")
    monkeypatch.setenv("AZURE_SKIP_SIGNATURE", "true")
    monkeypatch.setenv(variable, "http://minio.internal:9000")
    with pytest.raises(UnsafeError, match=r"minio\.internal is not encrypted"):
        open_store(parse(uri))
    monkeypatch.setenv({"s": "AWS", "g": "GOOGLE", "a": "AZURE"}[uri[0]] + "_ALLOW_HTTP", "true")
    open_store(parse(uri))
    for bad in ("http://user:s3cr3t@127.0.0.1:1", "http:///x", "ftp://127.0.0.1"):
        monkeypatch.setenv(variable, bad)
        with pytest.raises(BentotoolError) as failed:
            open_store(parse(uri))
        assert "s3cr3t" not in failed.value.message


@pytest.fixture
def aws_files(door: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Files of AWS's tools in place of the variables."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name)
    folder = tmp_path / "aws"
    folder.mkdir()
    monkeypatch.setenv("AWS_CONFIG_FILE", str(folder / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(folder / "credentials"))
    (folder / "config").write_text(
        f"[default]\nendpoint_url = {door.url}\n[profile team]\nregion = eu-west-1\nendpoint_url = {door.url}\n"
        "s3 =\n  max_concurrent_requests = 20\n"
    )
    return folder


def credential_of(door: Any) -> str:
    """The access key that signed the last request."""
    return str(door.asked[-1].authorization)


def test_a_profile_with_keys(
    door: Any, bucket: str, aws_files: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    door.put(f"/{bucket}/m", b"x")
    (aws_files / "credentials").write_text(
        "[default]\naws_access_key_id = AKIADEFAULT\naws_secret_access_key = a%b\n"
        "[team]\naws_access_key_id = AKIATEAM\naws_secret_access_key = t\naws_session_token = token\n"
    )
    fetch(f"s3://{bucket}/m", tmp_path / "f")
    assert "Credential=AKIADEFAULT/" in credential_of(door)
    monkeypatch.setenv("AWS_PROFILE", "team")
    fetch(f"s3://{bucket}/m", tmp_path / "g")
    assert "Credential=AKIATEAM/" in credential_of(door)
    assert "/eu-west-1/" in credential_of(door)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAVARIABLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "v")
    fetch(f"s3://{bucket}/m", tmp_path / "h")
    assert "Credential=AKIAVARIABLE/" in credential_of(door)
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    with pytest.raises(AuthenticationError, match="is refused"):  # the bucket is not public
        fetch(f"s3://{bucket}/m", tmp_path / "i")
    assert credential_of(door) == ""


def test_a_profile_that_logs_in_through_a_program(
    door: Any, bucket: str, aws_files: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, require_package: Any
) -> None:
    require_package("botocore")
    door.put(f"/{bucket}/m", b"x")
    told = {"Version": 1, "AccessKeyId": "AKIAPROGRAM", "SecretAccessKey": "p", "SessionToken": "t"}
    (aws_files / "login.py").write_text(f"print({json.dumps(told)!r})")
    python, script = Path(sys.executable).as_posix(), (aws_files / "login.py").as_posix()
    with (aws_files / "config").open("a") as config:
        config.write(f'[profile sso]\ncredential_process = "{python}" "{script}"\nendpoint_url = {door.url}\n')
    monkeypatch.setenv("AWS_PROFILE", "sso")
    fetch(f"s3://{bucket}/m", tmp_path / "f")
    assert "Credential=AKIAPROGRAM/" in credential_of(door)
    (aws_files / "login.py").write_text("raise SystemExit('s3cr3t')")
    with pytest.raises(AuthenticationError, match="does not log in") as failed:
        fetch(f"s3://{bucket}/m", tmp_path / "g")
    assert "s3cr3t" not in failed.value.message


def test_a_certificate_of_ones_own(
    tls_door: Any, bucket: str, door: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    behind, authority = tls_door
    door.put(f"/{bucket}/m", b"x")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"https://127.0.0.1:{behind.port}")
    with pytest.raises(RemoteError, match="is not trusted") as failed:
        fetch(f"s3://{bucket}/m", tmp_path / "f")
    assert "SSL_CERT_FILE" in str(failed.value.hint)
    with monkeypatch.context() as patch:
        patch.setenv("AWS_CA_BUNDLE", str(authority))
        assert len(fetch(f"s3://{bucket}/m", tmp_path / "f").files) == 1
        patch.setenv("AWS_CA_BUNDLE", str(tmp_path / "absent"))
        with pytest.raises(UsageError, match="AWS_CA_BUNDLE cannot be read"):
            open_store(parse("s3://models/m"))
    if sys.platform == "linux":  # elsewhere the system's own store is asked
        monkeypatch.setenv("SSL_CERT_FILE", str(authority))
        assert len(fetch(f"s3://{bucket}/m", tmp_path / "g").files) == 1


def test_a_damaged_file_of_aws_is_not_quoted(aws_files: Path) -> None:
    (aws_files / "credentials").write_text("aws_secret_access_key = s3cr3t\n")
    with pytest.raises(UsageError, match="MissingSectionHeaderError") as failed:
        open_store(parse("s3://models/m"))
    assert "s3cr3t" not in str(failed.value)


def test_the_library_is_not_imported_for_other_models() -> None:
    code = "import sys, bentotool_objectstore.hooks as h; h.bentotool_sources(); print('obstore' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "False"
