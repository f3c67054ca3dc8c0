"""What the library's failures mean to a user.

Its messages quote addresses, headers and bodies, in which signatures and tokens may stand: they are read here and never
shown; an error holds a status or a code of the service at most.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

from bentotool.errors import AuthenticationError, BentotoolError, NotFoundError, RemoteError, UnsafeError
from bentotool_objectstore.address import Address

__all__ = ["no_credentials", "refused", "translate"]

_STATUS = re.compile(r"status: (\d{3})\b")
_CODE = re.compile(r"<Code>([A-Za-z]{3,60})</Code>")
_ASKED = re.compile(r"Error performing (?:GET|HEAD|POST|PUT) (\S+) in ")
_SETTINGS = re.compile(
    r"MissingAccessKeyId|MissingSecretAccessKey|MissingKey|[Cc]redential|MissingAccount|InvalidKey|DecodeKey"
)
_NO_SUCH_BUCKET = ("NoSuchBucket", "ContainerNotFound", "InvalidBucketName", "InvalidResourceName")
_BAD_CREDENTIALS = frozenset(
    (
        *(
            "AccessDenied",
            "AccountProblem",
            "ExpiredToken",
            "InvalidAccessKeyId",
            "InvalidToken",
            "TokenRefreshRequired",
        ),
        *("RequestTimeTooSkewed", "SignatureDoesNotMatch", "AuthenticationFailed", "AuthorizationFailure"),
        *("AuthorizationPermissionMismatch", "NoAuthenticationInformation", "PublicAccessNotPermitted"),
    )
)
_OTHER_REGION = frozenset(
    ("PermanentRedirect", "TemporaryRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException")
)
CREDENTIALS_HINT = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; "
    "AWS_SKIP_SIGNATURE=true for a public bucket",
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS, or run gcloud auth application-default login; "
    "GOOGLE_SKIP_SIGNATURE=true for a public bucket",
    "az": "set AZURE_STORAGE_ACCOUNT with AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN, or run az login and set "
    "AZURE_USE_AZURE_CLI=true; AZURE_SKIP_SIGNATURE=true for a public container",
}


def no_credentials(address: Address) -> AuthenticationError:
    """Nothing to log in with."""
    return AuthenticationError(f"there are no credentials for {address.place}", hint=CREDENTIALS_HINT[address.kind])


def refused(address: Address, code: str = "") -> AuthenticationError:
    """The service knows who asks, or cannot tell, and says no."""
    told = f" ({code})" if code else ""
    return AuthenticationError(f"{address.shown} is refused{told}", hint=CREDENTIALS_HINT[address.kind])


def translate(error: Exception, address: Address) -> BentotoolError:
    """An error of ours in place of the library's."""
    from obstore import exceptions

    text = str(error)
    found, coded = _STATUS.search(text), _CODE.search(text)
    status, code = found[1] if found else "", coded[1] if coded else ""
    if isinstance(error, exceptions.InvalidPathError):
        return UnsafeError(f"an object below {address.shown} has a key that is no plain path", hint="rename the object")
    if _is_login(text, address):
        return no_credentials(address)
    if any(name in text for name in _NO_SUCH_BUCKET):
        return NotFoundError(f"{address.place} does not exist", hint="check the name, and the account or region")
    if isinstance(error, FileNotFoundError) or status == "404":
        return NotFoundError(f"{address.shown} does not exist", hint="check the name, and the account or region")
    if address.kind == "s3" and (code in _OTHER_REGION or "redirect without LOCATION" in text):
        return RemoteError(f"{address.place} lies in another region", hint="set AWS_REGION to the bucket's region")
    if "InvalidCertificate" in text:
        return RemoteError(
            f"the certificate of {address.place} is not trusted",
            hint="set SSL_CERT_FILE to the file of the authority that signed it",
        )
    denied = isinstance(error, exceptions.PermissionDeniedError | exceptions.UnauthenticatedError)
    if denied or status in ("401", "403") or code in _BAD_CREDENTIALS:
        return refused(address, code or status)
    if status or code:
        return RemoteError(f"{address.place} answered {' '.join(filter(None, (status, code)))}", hint="try again later")
    return RemoteError(f"{address.place} did not answer", hint="the same command goes on where this one stopped")


def _is_login(text: str, address: Address) -> bool:
    """Whether getting credentials failed, from the machine or a token service, and not the store."""
    asked = _ASKED.search(text)
    if asked is None:
        return _SETTINGS.search(text) is not None
    # every request to the store names the bucket; one that is signed in its query is not told at all
    return asked[1] != "REDACTED" and address.bucket not in unquote(asked[1])
