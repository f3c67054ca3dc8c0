"""The zoo: signatures of APIs that BentoML and bentotool declare alike, with one call of each and what it gives."""

import dataclasses
import importlib
import importlib.util

import binary_cases
import model_cases
import plain_cases

GROUPS = (
    (None, plain_cases.plain_cases),
    (None, plain_cases.structured_cases),
    (None, plain_cases.text_cases),
    (None, binary_cases.file_cases),
    (None, plain_cases.stream_cases),
    (None, plain_cases.context_cases),
    ("numpy", binary_cases.array_cases),
    ("PIL", binary_cases.image_cases),
    ("pandas", binary_cases.frame_cases),
    ("polars", binary_cases.polars_cases),
    ("torch", binary_cases.torch_cases),
    ("pydantic", model_cases.model_cases),
    ("msgspec", model_cases.struct_cases),
)


@dataclasses.dataclass(frozen=True)
class Case:
    """One signature.

    Attributes:
        func: the API's function.
        args: of the call.
        kwargs: of the call.
        expected: what `calls.shown` makes of the answer of a bentotool service.
        theirs: the same through BentoML's client, where its reading of the answer differs.
        options: of ``@api``, or of ``@task``.
        package: that its types come from.
        task: it is submitted, and its result waited for.
    """

    func: object
    args: tuple
    kwargs: dict
    expected: str
    theirs: str
    options: dict
    package: str | None
    task: bool

    @property
    def name(self):
        return self.func.__name__


class Zoo:
    """Collects the cases for one library, without those whose packages are not installed.

    Args:
        library: the module ``bentotool`` or ``bentoml``.
    """

    def __init__(self, library):
        self.library = library
        self.cases = []
        self._package = None
        for package, group in GROUPS:
            if package is None or importlib.util.find_spec(package) is not None:
                self._package = package
                group(self)

    def case(self, expected, *args, options=None, theirs=None, task=False, **kwargs):
        def add(func):
            found = Case(func, args, kwargs, expected, theirs or expected, options or {}, self._package, task)
            self.cases.append(found)
            return func

        return add

    @property
    def validators(self):
        return importlib.import_module(f"{self.library.__name__}.validators")


def declared(library, prefix=""):
    """The service of all signatures that a library takes, their cases, and why it refuses the others.

    Args:
        prefix: ``path_prefix`` of the service.
    """
    zoo, body, refused = Zoo(library), {}, {}
    for case in zoo.cases:
        options = {"max_batch_size": 10, **case.options} if case.options.get("batchable") else case.options
        wrap = library.task if case.task else library.api
        try:
            service = library.service(name="One")(type("One", (), {case.name: wrap(**options)(case.func)}))
            service.schema()
        except Exception as error:  # whatever a library raises for what it does not take
            refused[case.name] = f"refused: {type(error).__name__}"
        else:
            body[case.name] = wrap(**options)(case.func)
    more = {"path_prefix": prefix} if prefix else {}
    service = library.service(name="Zoo", traffic={"timeout": 10}, **more)(type("Zoo", (), body))
    return service, zoo.cases, refused
