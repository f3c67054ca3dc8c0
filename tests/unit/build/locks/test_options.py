"""What pip documents for a requirements file: honoured, or refused by name with what to do."""

from __future__ import annotations

from typing import Any

import pytest

from bentotool.errors import BentotoolError, BuildError, ConfigError

CONFIG = "python: {requirements_txt: r.txt, index_url: '%s'}"


def test_only_binary_and_packages_without_a_wheel(new_index: Any, locked: Any) -> None:
    index = new_index().add("tiny", "1.0").add_source("tiny", "2.0").add_source("raw")
    config = {"bentofile.yaml": CONFIG % index.url}
    both = locked({**config, "r.txt": "tiny\nraw\n"})
    assert both.pins == ("raw==1.0", "tiny==2.0")
    assert both.built == ("raw", "tiny")
    assert locked({**config, "r.txt": "tiny\nraw\n"}, previous=both).built == both.built
    wheel = locked({**config, "r.txt": "--only-binary=tiny\ntiny\nraw\n"})
    assert (wheel.pins, wheel.built) == (("raw==1.0", "tiny==1.0"), ("raw",))
    with pytest.raises(BuildError, match="raw") as caught:
        locked({**config, "r.txt": "--only-binary :all:\nraw\n"})
    assert "python.wheels" in str(caught.value.hint)
    assert locked({**config, "r.txt": "--only-binary :all:\n--only-binary :none:\nraw\n"}).pins == ("raw==1.0",)
    source = new_index().add("tiny", "3.0").add_source("tiny", "2.0")
    assert locked({"bentofile.yaml": CONFIG % source.url, "r.txt": "--no-binary tiny\ntiny\n"}).pins == ("tiny==2.0",)


def test_pre_releases(new_index: Any, locked: Any) -> None:
    index = new_index().add("tiny", "1.0").add("tiny", "2.0rc1")
    config = {"bentofile.yaml": CONFIG % index.url}
    assert locked({**config, "r.txt": "tiny\n"}).pins == ("tiny==1.0",)
    assert locked({**config, "r.txt": "--pre\ntiny\n"}).pins == ("tiny==2.0rc1",)


@pytest.mark.parametrize(
    "option",
    ["--prefer-binary", "--use-feature=fast-deps", "--config-settings a=b", "-C a=b", "--global-option=x",
     "--install-option=x", "--build-option=x", "--no-build-isolation", "--no-deps", "--platform linux_x86_64",
     "--client-cert x.pem", "--cert x.pem", "--proxy http://h", "--unheard-of"],
)  # fmt: skip
def test_an_option_that_is_refused_is_named_with_what_to_do(gathered: Any, option: str) -> None:
    with pytest.raises(ConfigError) as caught:
        gathered({"bentofile.yaml": "python: {requirements_txt: r.txt}", "r.txt": f"six\n{option}\n"})
    assert option.split("=", maxsplit=1)[0].split(maxsplit=1)[0] in caught.value.message
    assert caught.value.hint
    assert caught.value.path == ("r.txt", "line 2")


def test_hashes_that_are_required(gathered: Any) -> None:
    config = {"bentofile.yaml": "python: {requirements_txt: r.txt}"}
    good = f"--require-hashes\nsix==1 \\\n  --hash=sha256:{'0' * 64} \\\n  --hash=sha256:{'1' * 64}\n"
    assert gathered({**config, "r.txt": good}).lines[0].count("--hash") == 2
    with pytest.raises(ConfigError, match="attrs"):
        gathered({**config, "r.txt": good + "attrs==1\n"})


def test_continuations_and_comments(gathered: Any) -> None:
    text = (
        "six \\\n  >= 1 \\\n  # not a part\nattrs#egg\nnumpy # why\n\n   # indented\nscipy ; \\\n python_version > '3'"
    )
    config = {"bentofile.yaml": "python: {requirements_txt: r.txt}"}
    with pytest.raises(ConfigError):
        gathered({**config, "r.txt": text})
    found = gathered({**config, "r.txt": text.replace("attrs#egg\n", "")})
    assert found.lines == ("six>=1", "numpy", 'scipy; python_version > "3"')


@pytest.mark.parametrize(
    ("content", "fine"),
    [
        ("six # é\n".encode("utf-8-sig"), True),
        ("six # é\n".encode("utf-16"), True),
        (b"\xff\xfe\x00\x00" + "six # é\n".encode("utf-32-le"), True),
        ("# -*- coding: latin-1 -*-\nsix # é\n".encode("latin-1"), True),
        ("six # é\n".encode("latin-1"), False),
        (b"# coding: rot13\nfvk\n", False),
        (b"# coding: no-such\nsix\n", False),
        (b"six\x00\n", False),
    ],
)
def test_encodings(gathered: Any, tmp_path: Any, content: bytes, fine: bool) -> None:
    from bentotool.build.configfile import load_config
    from bentotool.build.requirements import gather

    (tmp_path / "service.py").write_text("")
    (tmp_path / "bentofile.yaml").write_text("python: {requirements_txt: r.txt}")
    (tmp_path / "r.txt").write_bytes(content)
    if fine:
        assert gather(load_config(tmp_path), ()).lines == ("six",)
    else:
        with pytest.raises(ConfigError):
            gather(load_config(tmp_path), ())


def test_control_characters_in_any_text(gathered: Any) -> None:
    """Class 3: no string reaches a file of uv's, a lock or a header with a line end in it."""
    for bad in ("a\\nb", "a\\u2028b", "a\\u0000b", "a\\rb"):
        for toml in (
            f'[tool.uv.sources]\nx = {{index = "{bad}"}}',
            f'[[tool.uv.index]]\nname = "{bad}"\nurl = "https://h/s"',
            f'[[tool.uv.index]]\nname = "a"\nurl = "https://h/{bad}"',
            f'[tool.uv]\nconstraint-dependencies = ["{bad}"]',
            f'[tool.uv]\nexclude-newer = "{bad}"',
            f'[tool.uv]\nprerelease = "{bad}"',
            f'[project]\nname = "d"\ndependencies = ["x"]\n[tool.uv.sources]\nx = {{git = "https://h/{bad}"}}',
            f'[project]\ndependencies = ["x"]\n[tool.uv.sources]\nx = {{git = "https://h/x", rev = "{bad}"}}',
            f'[project]\nname = "d"\ndependencies = ["x"]\n[tool.uv.sources]\nx = {{path = "{bad}"}}',
            f'[project]\nname = "d"\ndependencies = ["x"]\n[tool.uv.sources]\nx = {{url = "https://h/{bad}"}}',
        ):
            with pytest.raises(BentotoolError):
                gathered({"pyproject.toml": toml + "\n"})
