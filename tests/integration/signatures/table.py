"""The page docs/signatures.md: what each signature gives, through both clients and of both servers.

    python tests/integration/signatures/table.py docs/signatures.md

needs bentoml and every package that a signature uses.
"""

import pathlib
import sys
import tempfile

import zoo
from calls import bentoml_client, called, serving, signature

HEAD = """# Signatures

What each API gives when it is called: of a BentoML server and of a bentotool server, through BentoML's HTTP client and
through ours. The page is made by `python tests/integration/signatures/table.py docs/signatures.md` with BentoML
{version}; a test makes it again and compares.

Files and images are given to the clients as paths. "same" is what the column "BentoML" has; an error is shown by its
type; "refused" is an API that the library does not take. What differs is explained in
[differences from BentoML](bentoml-differences.md#types).

| signature | BentoML | BentoML's client, bentotool | our client, BentoML | our client, bentotool |
|---|---|---|---|---|
"""


def rows():
    """The lines of the table."""
    import bentoml

    import bentotool

    found = {}
    for library in (bentoml, bentotool):
        _, cases, refused = zoo.declared(library)
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            with serving(library.__name__, folder) as url:
                for make in (bentoml_client, bentotool.SyncHTTPClient):
                    with make(url) as client:
                        for case in cases:
                            outcomes = found.setdefault(case.name, [])
                            outcomes.append(refused.get(case.name) or called(client, case, folder))
    for case in cases:
        theirs, ours_of_theirs, theirs_of_ours, ours = found[case.name]
        cells = [theirs, *("same" if cell == theirs else cell for cell in (theirs_of_ours, ours_of_theirs, ours))]
        shown = [cell if cell == "same" or cell.startswith("refused") else f"`{cell}`" for cell in cells]
        yield "| " + " | ".join([f"`{signature(case)}`", *shown]) + " |\n"


def page():
    """The whole page."""
    import bentoml

    return HEAD.format(version=bentoml.__version__) + "".join(rows())


if __name__ == "__main__":
    pathlib.Path(sys.argv[1]).write_text(page())
