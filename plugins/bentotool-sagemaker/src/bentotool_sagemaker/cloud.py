"""AWS: clients for an account and a region, and what their failures mean."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import boto3
import botocore.exceptions as failures
from botocore.config import Config

from bentotool.errors import AuthenticationError, BentotoolError, ConflictError, NotFoundError, RemoteError, UsageError

__all__ = ["Cloud", "QuotaError", "explained", "is_code", "is_missing", "one_line"]

_SETTINGS = Config(connect_timeout=10, read_timeout=60, retries={"mode": "standard", "max_attempts": 5})
_LOGIN = "log in (aws sso login, or aws configure), or name a profile: --profile NAME"
_CREDENTIALS = (
    failures.NoCredentialsError, failures.PartialCredentialsError, failures.CredentialRetrievalError,
    failures.TokenRetrievalError, failures.SSOError,
)  # fmt: skip
_EXPIRED = {
    "ExpiredToken", "ExpiredTokenException", "InvalidClientTokenId", "UnrecognizedClientException",
    "InvalidSignatureException", "SignatureDoesNotMatch", "InvalidAccessKeyId", "IncompleteSignature",
}  # fmt: skip
_FORBIDDEN = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "NotAuthorized"}
_QUOTA = {"ResourceLimitExceeded", "LimitExceededException", "ServiceQuotaExceededException"}
_MISSING = (
    "ResourceNotFound", "ResourceNotFoundException", "ObjectNotFoundException", "RepositoryNotFoundException",
    "ImageNotFoundException",
)  # fmt: skip
_EXISTS = ("already existing", "already exists")
_BUSY = ("in-progress", "currently updating", "cannot update", "in progress")


class QuotaError(BentotoolError):
    """The account may have no more of it."""

    code = "quota"


class Cloud:
    """One account and region.

    Args:
        region, profile: as the user said; empty: as the AWS configuration says.

    Raises:
        UsageError: no such profile, or no region is known.
    """

    def __init__(self, region: str | None = None, profile: str | None = None) -> None:
        try:
            # boto3 itself reads AWS_DEFAULT_REGION alone, where the other SDKs and the command line know both
            named = region or os.environ.get("AWS_REGION") or None
            self._session = boto3.Session(profile_name=profile or None, region_name=named)
        except failures.BotoCoreError as error:
            raise UsageError(f"the AWS configuration cannot be used: {one_line(error)}", hint=_LOGIN) from None
        self.profile = profile or ""
        self.region = str(self._session.region_name or "")
        if not self.region:
            raise UsageError("no AWS region is named", hint="--region eu-central-1, or set AWS_REGION")
        self._clients: dict[str, Any] = {}

    def client(self, service: str, region: str = "") -> Any:
        """A client of boto3, made once."""
        key = f"{service}:{region or self.region}"
        if key not in self._clients:
            try:
                self._clients[key] = self._session.client(service, region_name=region or self.region, config=_SETTINGS)
            except (failures.BotoCoreError, ValueError) as error:
                raise UsageError(f"AWS {service} cannot be asked: {one_line(error)}", hint="--region NAME") from None
        return self._clients[key]

    @cached_property
    def account(self) -> str:
        """The number of the account."""
        with explained("ask who this is"):
            return str(self.client("sts").get_caller_identity()["Account"])

    @property
    def partition(self) -> str:
        return "aws-cn" if self.region.startswith("cn-") else "aws-us-gov" if "-gov-" in self.region else "aws"

    @property
    def registry(self) -> str:
        """The host of the account's own ECR."""
        suffix = "amazonaws.com.cn" if self.partition == "aws-cn" else "amazonaws.com"
        return f"{self.account}.dkr.ecr.{self.region}.{suffix}"


def one_line(error: BaseException | str) -> str:
    """What an error says, as one line of bounded length."""
    text = error.response.get("Error", {}).get("Message") if isinstance(error, failures.ClientError) else None
    words = "".join(char if char.isprintable() else " " for char in str(text or error)).split()
    return " ".join(words)[:400].rstrip(".") or type(error).__name__


def is_code(error: BaseException, *codes: str) -> bool:
    """Whether AWS answered with one of some codes."""
    return isinstance(error, failures.ClientError) and error.response.get("Error", {}).get("Code") in codes


def is_missing(error: BaseException) -> bool:
    """Whether what was asked for is not there: SageMaker has no code of its own for that."""
    if is_code(error, *_MISSING):
        return True
    return is_code(error, "ValidationException", "ValidationError") and "could not find" in one_line(error).lower()


@contextlib.contextmanager
def explained(action: str) -> Iterator[None]:
    """Turn AWS's failures within the block into errors of one line.

    Args:
        action: what is being done, for the message.

    Raises:
        BentotoolError: what went wrong, and the next step.
    """
    try:
        yield
    except failures.ClientError as error:
        raise _refused(action, error) from error
    except failures.ParamValidationError as error:
        raise UsageError(f"{action}: {one_line(error)}") from error
    except _CREDENTIALS as error:
        raise AuthenticationError(f"{action}: AWS has no credentials here: {one_line(error)}", hint=_LOGIN) from error
    except failures.ProfileNotFound as error:
        raise UsageError(f"{action}: {one_line(error)}", hint="aws configure list-profiles") from error
    except failures.BotoCoreError as error:
        raise RemoteError(
            f"{action}: AWS does not answer: {one_line(error)}", hint="look at the network and at --region"
        ) from error


def _refused(action: str, error: failures.ClientError) -> BentotoolError:
    code, said = str(error.response.get("Error", {}).get("Code", "")), one_line(error)
    if code in _EXPIRED:
        return AuthenticationError(f"{action}: AWS refuses the credentials: {said}", hint=_LOGIN)
    if code in _FORBIDDEN:
        return AuthenticationError(
            f"{action}: not allowed: {said}", hint=f"let who deploys do this: {_action_of(error)}"
        )
    if code in _QUOTA:
        return QuotaError(
            f"{action}: {said}",
            hint="another --instance-type or fewer --instances, or ask for more: Service Quotas, Amazon SageMaker",
        )
    if is_missing(error):
        return NotFoundError(f"{action}: {said}")
    lower = said.lower()
    if any(words in lower for words in _EXISTS) or code in ("ResourceInUse", "ConflictException"):
        return ConflictError(f"{action}: {said}")
    if any(words in lower for words in _BUSY):
        return ConflictError(f"{action}: {said}")
    if "assume" in lower and "role" in lower:
        return UsageError(
            f"{action}: {said}",
            hint="the role has to trust sagemaker.amazonaws.com, and who deploys needs iam:PassRole",
        )
    if code.startswith(("Validation", "InvalidParameter")):
        return UsageError(f"{action}: {said}")
    return RemoteError(f"{action}: {said} ({code})" if code else f"{action}: {said}")


def _action_of(error: failures.ClientError) -> str:
    return f"the {error.operation_name} action, in a policy of IAM"
