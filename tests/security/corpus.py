"""Hostile values by class, shared by every test that has a field to try them on. Loaded by path, as data."""

from __future__ import annotations

CONTROL_CHARACTERS = (
    "a\nb",
    "a\rb",
    "a\r\nb",
    "a\x00b",
    "a\x1bb",
    "a\x7fb",
    "a\u2028b",
    "a\u2029b",
    "a\x85b",
    "a\udc80b",
)
"""Class 3: characters that end a line, or drive a terminal, somewhere downstream."""

SHELL = (
    "a;b",
    "a&&b",
    "$(touch x)",
    "`touch x`",
    "{{ 7*7 }}",
    "{% raw %}",
    "a#b",
    "a\\",
    "'",
    '"',
    "a|b",
    "a>b",
    "${HOME}",
)
"""Class 3: what a shell, a Dockerfile or a template would act on."""

PATHS = (
    "../secret",
    "a/../../secret",
    "/etc/passwd",
    "~/secret",
    "$HOME/secret",
    "..\\secret",
    "\\..\\secret",
    "C:\\secret",
    "C:secret",
    "\\\\host\\share",
    "file:///etc/passwd",
    "..%2fsecret",
    "..%252fsecret",
    "a\x00b",
    "//host/secret",
    "./../secret",
    "secret#x",
    "secret?x",
    "secret;x",
    "secret/",
    ".",
    "..",
    "-secret",
)
"""Class 4: paths that would leave a folder, after one decoding or on one platform."""
